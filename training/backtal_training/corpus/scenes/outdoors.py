"""Park, beach and street."""

from __future__ import annotations

from backtal_training.corpus.figure import Colour, hsv
from backtal_training.corpus.scenes.brush import Brush


def park(brush: Brush) -> float:
    """Meadow, trees, a path and a bench. Returns the horizon's height."""
    random = brush.random
    horizon = random.uniform(140, 162)
    sky = random.uniform(0.54, 0.6)
    brush.gradient(
        brush.top, horizon, hsv(sky, random.uniform(0.35, 0.6), 0.92), hsv(sky, 0.1, 0.98)
    )
    _clouds(brush, horizon)
    green = random.uniform(0.25, 0.36)
    for layer in range(3):
        _tree_line(brush, horizon, green, 1.0 - 0.25 * layer)
    brush.blur(1.1)
    light, dark = hsv(green, 0.5, random.uniform(0.6, 0.75)), hsv(green, 0.62, 0.42)
    brush.gradient(horizon, brush.bottom, light, dark)
    brush.speckle(horizon, brush.bottom, 9.0, 2.5)
    if random.random() < 0.75:
        _path(brush, horizon)
    for _ in range(random.randint(1, 3)):
        side = random.choice([-1, 1])
        _tree(brush, 170 + side * random.uniform(80, 185), horizon + random.uniform(4, 22), green)
    if random.random() < 0.7:
        _bench(brush, random.choice([random.uniform(-5, 50), random.uniform(240, 300)]), horizon)
    for _ in range(random.randint(0, 40)):
        brush.ellipse(
            random.uniform(brush.left, brush.right),
            random.uniform(horizon + 12, brush.bottom),
            1.3,
            1.0,
            hsv(random.choice([0.0, 0.14, 0.8, 0.95]), random.uniform(0.1, 0.7), 0.95),
        )
    return horizon


def beach(brush: Brush) -> float:
    """Sea, sand and parasols. Returns the horizon's height."""
    random = brush.random
    horizon = random.uniform(104, 128)
    evening = random.random() < 0.35
    hue = random.uniform(0.05, 0.1) if evening else random.uniform(0.53, 0.6)
    top = hsv(0.62, 0.45, 0.6) if evening else hsv(hue, 0.55, 0.95)
    brush.gradient(brush.top, horizon, top, hsv(hue, 0.4 if evening else 0.12, 0.99))
    _clouds(brush, horizon)
    shore = horizon + random.uniform(28, 46)
    water = random.uniform(0.48, 0.58)
    brush.gradient(horizon, shore, hsv(water, 0.75, 0.55), hsv(water, 0.5, 0.85))
    for _ in range(random.randint(14, 26)):
        y = horizon + (shore - horizon) * random.random() ** 1.3
        x = random.uniform(brush.left, brush.right)
        long = 6 + 30 * (y - horizon) / (shore - horizon)
        brush.line([(x, y), (x + long, y)], (255, 255, 255, 110), 0.8)
    if random.random() < 0.6:
        _sail(brush, random.uniform(10, 330), horizon + 3)
    if random.random() < 0.5:
        _headland(brush, horizon)
    brush.blur(0.9)
    sand = random.uniform(0.09, 0.12)
    brush.gradient(shore, brush.bottom, hsv(sand, 0.28, 0.93), hsv(sand, 0.4, 0.8))
    brush.speckle(shore, brush.bottom, 7.0, 2.0)
    foam = [(x, shore + random.uniform(-1.5, 1.5)) for x in range(-40, 400, 12)]
    brush.line(foam, (255, 255, 255, 235), 3.0)
    brush.line([(x, y + 4) for x, y in foam], (*hsv(sand, 0.42, 0.7), 120), 3.0)
    for _ in range(random.randint(1, 3)):
        x = 170 + random.choice([-1, 1]) * random.uniform(78, 180)
        _parasol(brush, x, shore + random.uniform(14, 34))
    if random.random() < 0.5:
        _palm(brush, random.choice([random.uniform(-10, 45), random.uniform(295, 350)]), shore + 28)
    for _ in range(random.randint(0, 3)):
        x, y = random.uniform(0, 300), random.uniform(shore + 40, 236)
        stripe = hsv(random.random(), 0.6, 0.9)
        brush.polygon([(x, y), (x + 34, y), (x + 26, y + 9), (x - 10, y + 9)], stripe)
        brush.polygon([(x + 6, y), (x + 13, y), (x + 5, y + 9), (x - 2, y + 9)], (250, 250, 245))
    return shore


def street(brush: Brush) -> float:
    """Houses, shop windows, pavement, lamps and parked cars. Returns the horizon's height."""
    random = brush.random
    horizon = random.uniform(148, 164)
    sky = random.uniform(0.55, 0.62)
    brush.gradient(brush.top, horizon, hsv(sky, 0.3, 0.85), hsv(sky, 0.06, 0.95))
    x = brush.left
    while x < brush.right:
        width = random.uniform(58, 105)
        _house(brush, x, width, random.uniform(brush.top, 52), horizon)
        x += width
    for _ in range(random.randint(1, 3)):
        _car(brush, random.uniform(-30, 310), horizon + 3)
    brush.blur(0.8)
    grey = random.uniform(0.55, 0.72)
    brush.gradient(horizon, brush.bottom, hsv(0.08, 0.06, grey), hsv(0.08, 0.08, grey - 0.16))
    for step in range(5):
        y = horizon + (brush.bottom - horizon) * (step / 5) ** 1.6
        brush.line([(brush.left, y), (brush.right, y)], (0, 0, 0, 45), 0.8)
    for column in range(-8, 9):
        middle = 170 + 24 * column
        brush.line([(middle, horizon), (170 + 52 * column, brush.bottom)], (0, 0, 0, 38), 0.8)
    brush.gradient(horizon - 1, horizon + 3, hsv(0.1, 0.05, 0.8), hsv(0.1, 0.05, 0.5))
    brush.speckle(horizon, brush.bottom, 5.0, 1.5)
    for _ in range(random.randint(1, 2)):
        _lamp(
            brush, random.choice([random.uniform(10, 75), random.uniform(265, 330)]), horizon + 16
        )
    if random.random() < 0.6:
        x = random.choice([random.uniform(0, 50), random.uniform(285, 330)])
        red = hsv(random.choice([0.0, 0.33, 0.6]), 0.7, 0.6)
        brush.rectangle(x, horizon + 4, 17, 30, red, 3)
        brush.rectangle(x - 1, horizon + 1, 19, 6, red, 3)
    return horizon


def _clouds(brush: Brush, horizon: float) -> None:
    random = brush.random
    for _ in range(random.randint(2, 6)):
        x, y = random.uniform(-20, 360), random.uniform(brush.top, horizon - 60)
        for _ in range(5):
            brush.ellipse(
                x + random.uniform(-22, 22),
                y + random.uniform(-4, 4),
                random.uniform(9, 20),
                random.uniform(4, 9),
                (255, 255, 255, 120),
            )


def _tree_line(brush: Brush, horizon: float, green: float, value: float) -> None:
    random = brush.random
    x = brush.left
    while x < brush.right:
        size = random.uniform(14, 32) * (0.55 + 0.5 * value)
        colour = hsv(green + random.uniform(-0.03, 0.03), 0.5, 0.22 + 0.33 * value)
        brush.ellipse(x, horizon - size * (0.2 + 0.9 * value), size, size * 1.3, colour)
        x += size * 0.8
    brush.rectangle(brush.left, horizon - 16, 500, 18, hsv(green, 0.55, 0.25))


def _tree(brush: Brush, x: float, ground: float, green: float) -> None:
    random = brush.random
    tall, trunk = random.uniform(85, 130), hsv(0.07, 0.5, random.uniform(0.28, 0.42))
    brush.ellipse(x, ground + 1, 30, 5, (0, 30, 0, 70))
    brush.polygon(
        [(x - 6, ground), (x - 3, ground - tall), (x + 3, ground - tall), (x + 6, ground)], trunk
    )
    shade = random.uniform(0.35, 0.5)
    for index in range(14):
        lit = shade + 0.02 * index
        brush.ellipse(
            x + random.uniform(-26, 26),
            ground - tall + random.uniform(-34, 24) - index,
            random.uniform(13, 22),
            random.uniform(11, 18),
            hsv(green + random.uniform(-0.02, 0.02), 0.6, lit),
        )


def _path(brush: Brush, horizon: float) -> None:
    random = brush.random
    far, near = random.uniform(60, 280), random.uniform(90, 250)
    colour = hsv(0.1, 0.22, random.uniform(0.7, 0.85))
    brush.polygon(
        [
            (far - 4, horizon),
            (far + 4, horizon),
            (near + 95, brush.bottom),
            (near - 95, brush.bottom),
        ],
        colour,
    )
    brush.speckle(horizon + 2, brush.bottom, 3.0, 1.5)


def _bench(brush: Brush, x: float, horizon: float) -> None:
    wood = hsv(0.07, 0.55, brush.random.uniform(0.4, 0.6))
    y = horizon + 14
    for leg in (4, 46):
        brush.rectangle(x + leg, y, 3, 20, (50, 50, 55))
    for row in range(3):
        brush.rectangle(x, y - 14 + 5 * row, 53, 3.5, wood, 1)
    brush.rectangle(x - 1, y + 3, 55, 5, wood, 1)


def _sail(brush: Brush, x: float, y: float) -> None:
    brush.polygon([(x, y - 2), (x, y - 24), (x + 11, y - 4)], (250, 250, 250))
    brush.polygon([(x - 8, y - 1), (x + 13, y - 1), (x + 9, y + 3), (x - 5, y + 3)], (120, 50, 40))


def _headland(brush: Brush, horizon: float) -> None:
    side = brush.random.choice([-1, 1])
    edge = 170 + side * 210
    brush.polygon(
        [
            (edge, horizon + 1),
            (edge, horizon - 34),
            (edge - side * 60, horizon - 26),
            (edge - side * 110, horizon - 9),
            (edge - side * 140, horizon + 1),
        ],
        hsv(0.33, 0.25, 0.45),
    )


def _parasol(brush: Brush, x: float, ground: float) -> None:
    random = brush.random
    hue, tall = random.random(), random.uniform(44, 58)
    brush.ellipse(x + 12, ground + 2, 26, 4, (90, 60, 20, 80))
    brush.line([(x, ground), (x + 3, ground - tall)], (235, 235, 230), 2)
    top = (x + 3, ground - tall - 11)
    for part in range(6):
        start, end = (x + 3 - 33 + 11 * part, x + 3 - 33 + 11 * (part + 1))
        colour = hsv(hue, 0.75, 0.85) if part % 2 == 0 else (252, 250, 240)
        drop = [ground - tall + 6 - 6 * (1 - (abs(at - x - 3) / 33)) for at in (start, end)]
        brush.polygon([top, (start, drop[0]), (end, drop[1])], colour)


def _palm(brush: Brush, x: float, ground: float) -> None:
    random = brush.random
    bend = random.uniform(-18, 18)
    spine = [(x + bend * (step / 6) ** 2, ground - 21 * step) for step in range(7)]
    brush.line(spine, hsv(0.08, 0.45, 0.45), 6)
    head_x, head_y = spine[-1]
    for index in range(9):
        reach, drop = (index - 4) * 11.0, abs(index - 4) * 5.0
        middle = (head_x + 0.55 * reach, head_y - 13 + 0.3 * drop)
        brush.line(
            [(head_x, head_y), middle, (head_x + reach, head_y + drop)],
            hsv(0.33, 0.7, random.uniform(0.3, 0.5)),
            5,
        )


def _house(brush: Brush, x: float, width: float, top: float, ground: float) -> None:
    random = brush.random
    wall: Colour = hsv(
        random.choice([0.02, 0.06, 0.09, 0.12, 0.58]),
        random.uniform(0.12, 0.5),
        random.uniform(0.5, 0.85),
    )
    brush.rectangle(x, top, width + 1, ground - top + 2, wall)
    brush.rectangle(x, top, width + 1, 5, tuple(part // 2 for part in wall))
    columns = max(2, int(width // 24))
    glass = hsv(0.57, 0.35, random.uniform(0.3, 0.6))
    y = top + 14
    while y < ground - 62:
        for column in range(columns):
            left = x + (column + 0.5) * width / columns - 6
            brush.rectangle(left - 1.5, y - 1.5, 15, 23, (245, 242, 235))
            lit = random.random() < 0.2
            brush.rectangle(left, y, 12, 20, (250, 220, 140) if lit else glass)
            brush.line([(left + 6, y), (left + 6, y + 20)], (245, 242, 235), 1)
        y += 34
    shop = hsv(random.random(), 0.6, 0.5)
    brush.rectangle(x + 5, ground - 42, width - 10, 42, tuple(part // 3 for part in shop))
    brush.rectangle(x + 9, ground - 34, width - 32, 26, hsv(0.13, 0.3, 0.85))
    brush.rectangle(x + width - 20, ground - 34, 11, 34, tuple(part // 2 for part in shop))
    stripes = max(3, int(width // 9))
    for part in range(stripes):
        left = x + 3 + part * (width - 6) / stripes
        brush.rectangle(
            left,
            ground - 48,
            (width - 6) / stripes,
            10,
            shop if part % 2 == 0 else (245, 240, 230),
        )


def _car(brush: Brush, x: float, ground: float) -> None:
    colour = hsv(brush.random.random(), brush.random.uniform(0.2, 0.8), 0.65)
    brush.polygon(
        [
            (x + 14, ground - 20),
            (x + 24, ground - 33),
            (x + 54, ground - 33),
            (x + 68, ground - 20),
        ],
        colour,
    )
    brush.polygon(
        [
            (x + 19, ground - 20),
            (x + 27, ground - 30),
            (x + 52, ground - 30),
            (x + 62, ground - 20),
        ],
        (60, 80, 95),
    )
    brush.rectangle(x, ground - 21, 82, 15, colour, 5)
    for wheel in (17, 64):
        brush.ellipse(x + wheel, ground - 6, 8, 8, (25, 25, 28))
        brush.ellipse(x + wheel, ground - 6, 4, 4, (170, 170, 175))


def _lamp(brush: Brush, x: float, ground: float) -> None:
    brush.rectangle(x - 2, 26, 4, ground - 26, (45, 50, 52))
    brush.rectangle(x - 5, ground - 14, 10, 14, (45, 50, 52), 2)
    brush.rectangle(x - 8, 12, 16, 4, (45, 50, 52), 1)
    brush.ellipse(x, 23, 7, 9, (250, 240, 205))
