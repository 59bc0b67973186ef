"""Gym, office and stage."""

from __future__ import annotations

from backtal_training.corpus.figure import hsv
from backtal_training.corpus.scenes.brush import Brush


def gym(brush: Brush) -> float:
    """Wall bars, weights, mats and a wooden floor. Returns the horizon's height."""
    random = brush.random
    horizon = random.uniform(150, 166)
    hue = random.random()
    brush.gradient(
        brush.top, horizon, hsv(hue, random.uniform(0.05, 0.25), 0.9), hsv(hue, 0.15, 0.72)
    )
    band = hsv(hue + random.uniform(0.3, 0.6), 0.65, 0.7)
    brush.rectangle(brush.left, horizon - random.uniform(48, 70), 500, 9, band)
    _high_windows(brush)
    if random.random() < 0.7:
        _wall_bars(
            brush, random.choice([random.uniform(-15, 30), random.uniform(235, 285)]), horizon
        )
    if random.random() < 0.5:
        _mirror(brush, random.uniform(70, 190), horizon)
    brush.blur(0.8)
    wood = random.uniform(0.06, 0.1)
    value = random.uniform(0.55, 0.75)
    brush.gradient(horizon, brush.bottom, hsv(wood, 0.5, value + 0.15), hsv(wood, 0.6, value - 0.1))
    for column in range(-14, 15):
        brush.line(
            [(170 + 18 * column, horizon), (170 + 44 * column, brush.bottom)], (60, 30, 0, 60), 0.8
        )
    court = hsv(random.random(), 0.7, 0.85)
    brush.line([(brush.left, horizon + 30), (brush.right, horizon + 22)], (*court, 190), 2.5)
    brush.speckle(horizon, brush.bottom, 3.5, 2.0)
    brush.rectangle(brush.left, horizon - 4, 500, 5, hsv(wood, 0.5, 0.35))
    if random.random() < 0.6:
        mat = hsv(random.random(), 0.6, 0.65)
        brush.polygon([(80, 226), (262, 226), (300, 252), (44, 252)], mat)
    for _ in range(random.randint(1, 3)):
        side = random.choice([random.uniform(-10, 60), random.uniform(255, 330)])
        random.choice([_dumbbells, _punching_bag, _ball])(brush, side, horizon)
    return horizon


def office(brush: Brush) -> float:
    """Window, desks, shelves, plants and a carpet. Returns the horizon's height."""
    random = brush.random
    horizon = random.uniform(154, 170)
    hue = random.random()
    brush.gradient(
        brush.top, horizon, hsv(hue, random.uniform(0.02, 0.18), 0.93), hsv(hue, 0.1, 0.8)
    )
    _city_window(brush, random.uniform(10, 190), horizon)
    if random.random() < 0.7:
        _shelf(brush, random.choice([random.uniform(-20, 20), random.uniform(262, 300)]), horizon)
    if random.random() < 0.5:
        _picture(brush, random.uniform(30, 280))
    if random.random() < 0.6:
        x = random.uniform(40, 250)
        brush.rectangle(x, brush.top + 8, 60, 5, (255, 255, 250))
        brush.glow(x + 30, brush.top + 12, 60, (255, 255, 240), 0.25)
    brush.blur(0.8)
    carpet, value = random.random(), random.uniform(0.35, 0.6)
    brush.gradient(
        horizon, brush.bottom, hsv(carpet, 0.25, value + 0.08), hsv(carpet, 0.3, value - 0.08)
    )
    brush.speckle(horizon, brush.bottom, 6.0, 1.5)
    brush.rectangle(brush.left, horizon - 5, 500, 6, hsv(hue, 0.05, 0.97))
    for place in random.sample([-30.0, 250.0, 262.0, -12.0], random.randint(1, 2)):
        _desk(brush, place + random.uniform(-12, 12), horizon + random.uniform(12, 24))
    if random.random() < 0.75:
        x = random.choice([random.uniform(5, 60), random.uniform(280, 335)])
        _plant(brush, x, horizon + random.uniform(14, 40))
    return horizon


def stage(brush: Brush) -> float:
    """Curtains, boards and spotlights. Returns the horizon's height."""
    random = brush.random
    horizon = random.uniform(158, 174)
    back = random.random()
    brush.gradient(brush.top, horizon, hsv(back, 0.6, 0.1), hsv(back, 0.55, 0.34))
    if random.random() < 0.6:
        _backdrop(brush, back, horizon)
    brush.blur(1.2)
    boards, value = random.uniform(0.05, 0.09), random.uniform(0.4, 0.55)
    brush.gradient(horizon, brush.bottom, hsv(boards, 0.5, value - 0.1), hsv(boards, 0.5, value))
    for step in range(9):
        y = horizon + (brush.bottom - horizon) * (step / 9) ** 1.5
        brush.line([(brush.left, y), (brush.right, y)], (20, 8, 0, 110), 1)
    brush.speckle(horizon, brush.bottom, 4.0, 2.0)
    _curtains(
        brush, hsv(random.choice([0.98, 0.0, 0.62, 0.78, 0.4]), 0.8, random.uniform(0.5, 0.7))
    )
    warm = random.choice([(255, 235, 190), (255, 245, 225), (220, 230, 255)])
    for _ in range(random.randint(1, 3)):
        _beam(brush, random.uniform(60, 280), 170 + random.uniform(-50, 50), warm)
    brush.ellipse(170, 238, 105, 15, (*warm, 60))
    brush.ellipse(170, 238, 75, 10, (*warm, 50))
    brush.glow(170, 150, 95, warm, 0.28)
    if random.random() < 0.5:
        _stand(brush, random.choice([random.uniform(45, 80), random.uniform(265, 300)]), horizon)
    for column in range(random.randint(5, 9)):
        x = 25 + 42 * column
        brush.ellipse(x, 262, 7, 6, (250, 230, 160))
    return horizon


def _high_windows(brush: Brush) -> None:
    random = brush.random
    count = random.randint(2, 5)
    for index in range(count):
        x = brush.left + 14 + index * 396 / count
        width = 396 / count - 26
        brush.rectangle(x - 2, brush.top + 8, width + 4, 44, (90, 92, 98))
        brush.rectangle(x, brush.top + 10, width, 40, hsv(0.56, random.uniform(0.1, 0.3), 0.97))
        brush.line(
            [(x + width / 2, brush.top + 10), (x + width / 2, brush.top + 50)], (90, 92, 98), 1.5
        )


def _wall_bars(brush: Brush, x: float, horizon: float) -> None:
    wood = hsv(0.09, 0.5, brush.random.uniform(0.6, 0.8))
    for post in (0, 34, 68):
        brush.rectangle(x + post, 28, 4, horizon - 32, tuple(part * 3 // 4 for part in wood))
    for row in range(11):
        brush.rectangle(x, 33 + row * (horizon - 44) / 11, 72, 3.2, wood, 1)


def _mirror(brush: Brush, x: float, horizon: float) -> None:
    brush.rectangle(x - 2, 40, 94, horizon - 54, (120, 120, 128))
    brush.rectangle(x, 42, 90, horizon - 58, hsv(0.55, 0.12, 0.85))
    brush.polygon(
        [(x + 12, 42), (x + 30, 42), (x + 6, horizon - 16), (x, horizon - 40)], (255, 255, 255, 90)
    )


def _dumbbells(brush: Brush, x: float, horizon: float) -> None:
    brush.rectangle(x - 4, horizon - 8, 60, 4, (70, 72, 78))
    brush.rectangle(x, horizon - 8, 4, 32, (60, 62, 68))
    brush.rectangle(x + 48, horizon - 8, 4, 32, (60, 62, 68))
    for index in range(4):
        colour = hsv(brush.random.random(), 0.6, 0.6)
        brush.ellipse(x + 5 + 14 * index, horizon - 13, 6, 6, colour)
        brush.ellipse(x + 5 + 14 * index, horizon - 13, 2.5, 2.5, (40, 40, 44))


def _punching_bag(brush: Brush, x: float, horizon: float) -> None:
    colour = hsv(brush.random.choice([0.0, 0.03, 0.6, 0.1]), 0.7, 0.5)
    brush.line([(x + 14, brush.top), (x + 14, 62)], (60, 60, 64), 1.5)
    brush.rectangle(x, 60, 28, horizon - 68, colour, 9)
    brush.rectangle(x + 4, 66, 5, horizon - 82, (255, 255, 255, 45), 3)


def _ball(brush: Brush, x: float, horizon: float) -> None:
    size = brush.random.uniform(13, 20)
    brush.ellipse(x + 8, horizon + 30, size, size * 0.25, (40, 20, 0, 90))
    brush.ellipse(x + 8, horizon + 30 - size, size, size, hsv(brush.random.random(), 0.6, 0.8))
    brush.ellipse(x + 4, horizon + 24 - size, size * 0.4, size * 0.35, (255, 255, 255, 80))


def _city_window(brush: Brush, x: float, horizon: float) -> None:
    random = brush.random
    width, top, bottom = random.uniform(95, 135), 22.0, horizon - random.uniform(42, 58)
    sky = hsv(random.uniform(0.53, 0.6), random.uniform(0.2, 0.45), 0.96)
    brush.rectangle(x - 4, top - 4, width + 8, bottom - top + 8, (248, 248, 245))
    brush.rectangle(x, top, width, bottom - top, sky)
    left = x
    while left < x + width - 6:
        wide = min(random.uniform(12, 26), x + width - left)
        tall = random.uniform(18, 62)
        brush.rectangle(left, bottom - tall, wide, tall, hsv(0.6, 0.2, random.uniform(0.5, 0.75)))
        left += wide
    if random.random() < 0.5:
        y = top
        while y < bottom:
            brush.line([(x, y), (x + width, y)], (235, 232, 225, 200), 1.2)
            y += 5
    brush.rectangle(x + width / 2 - 2, top, 4, bottom - top, (248, 248, 245))


def _shelf(brush: Brush, x: float, horizon: float) -> None:
    random = brush.random
    wood = hsv(0.08, random.uniform(0.2, 0.5), random.uniform(0.4, 0.75))
    brush.rectangle(x, 38, 62, horizon - 38, tuple(part * 3 // 4 for part in wood))
    for row in range(4):
        y = 42 + row * (horizon - 44) / 4
        brush.rectangle(x + 3, y, 56, (horizon - 44) / 4 - 4, tuple(part // 2 for part in wood))
        left = x + 4.0
        while left < x + 52:
            wide, tall = random.uniform(3, 7), random.uniform(13, 20)
            base = y + (horizon - 44) / 4 - 4
            brush.rectangle(
                left, base - tall, wide, tall, hsv(random.random(), 0.5, random.uniform(0.4, 0.9))
            )
            left += wide + 0.6


def _picture(brush: Brush, x: float) -> None:
    random = brush.random
    brush.rectangle(x, 46, 46, 34, (60, 52, 46))
    brush.rectangle(x + 3, 49, 40, 28, hsv(random.random(), 0.4, 0.9))
    for _ in range(4):
        brush.ellipse(
            x + random.uniform(9, 37),
            random.uniform(55, 71),
            random.uniform(2, 7),
            random.uniform(2, 5),
            hsv(random.random(), 0.6, 0.7),
        )


def _desk(brush: Brush, x: float, y: float) -> None:
    random = brush.random
    top = hsv(0.08, random.uniform(0.1, 0.5), random.uniform(0.55, 0.85))
    for leg in (6, 104):
        brush.rectangle(x + leg, y - 12, 5, 40, (70, 70, 74))
    brush.rectangle(x, y - 16, 116, 7, top, 1)
    screen = x + random.uniform(22, 60)
    brush.rectangle(screen, y - 50, 42, 28, (32, 34, 38), 2)
    brush.rectangle(screen + 2, y - 48, 38, 24, hsv(random.uniform(0.5, 0.65), 0.5, 0.75))
    brush.rectangle(screen + 18, y - 23, 6, 7, (32, 34, 38))
    brush.rectangle(x + 8, y - 22, 8, 7, hsv(random.random(), 0.6, 0.8), 1)


def _plant(brush: Brush, x: float, ground: float) -> None:
    random = brush.random
    for index in range(11):
        reach, tall = (index - 5) * 5.5, random.uniform(38, 66)
        brush.line(
            [
                (x, ground - 20),
                (x + 0.4 * reach, ground - 20 - 0.6 * tall),
                (x + reach, ground - 20 - tall + abs(reach) * 0.6),
            ],
            hsv(0.34, 0.65, random.uniform(0.28, 0.5)),
            4,
        )
    pot = hsv(random.choice([0.04, 0.0, 0.6]), random.uniform(0.0, 0.6), 0.7)
    brush.polygon(
        [(x - 13, ground - 22), (x + 13, ground - 22), (x + 9, ground), (x - 9, ground)], pot
    )


def _backdrop(brush: Brush, hue: float, horizon: float) -> None:
    random = brush.random
    brush.ellipse(
        170 + random.uniform(-70, 70), random.uniform(40, 80), 26, 26, (250, 240, 200, 170)
    )
    for layer in range(2):
        points = [(brush.left, horizon)]
        x = brush.left
        while x < brush.right + 40:
            points.append((x, horizon - random.uniform(18, 66) + 22 * layer))
            x += random.uniform(28, 52)
        brush.polygon([*points, (brush.right + 40, horizon)], hsv(hue, 0.5, 0.22 + 0.1 * layer))


def _curtains(brush: Brush, colour: tuple[int, int, int]) -> None:
    random = brush.random
    inner = random.uniform(42, 62)
    for side in (-1, 1):
        folds = 8
        for fold in range(folds):
            width = (inner - brush.left) / folds
            x = brush.left + fold * width if side < 0 else brush.right - (fold + 1) * width
            lit = 0.62 + 0.38 * (fold % 2)
            brush.rectangle(
                x,
                brush.top,
                width + 0.5,
                258 - brush.top,
                tuple(round(part * lit) for part in colour),
                2,
            )
    for fold in range(14):
        x = brush.left + fold * 29
        lit = 0.65 + 0.3 * (fold % 2)
        brush.ellipse(x + 14, brush.top + 12, 17, 26, tuple(round(part * lit) for part in colour))


def _beam(brush: Brush, lamp: float, spot: float, colour: tuple[int, int, int]) -> None:
    for spread, strength in ((46, 14), (36, 16), (26, 18)):
        brush.polygon(
            [
                (lamp - 4, brush.top),
                (lamp + 4, brush.top),
                (spot + spread, 240),
                (spot - spread, 240),
            ],
            (*colour, strength),
        )


def _stand(brush: Brush, x: float, horizon: float) -> None:
    ground = horizon + 34
    brush.line([(x, ground), (x, ground - 84)], (30, 30, 34), 2)
    brush.line([(x - 9, ground + 2), (x, ground - 8), (x + 9, ground + 2)], (30, 30, 34), 2)
    brush.ellipse(x, ground - 87, 4, 6, (70, 70, 76))
