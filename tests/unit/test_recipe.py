from __future__ import annotations

import pytest
from pydantic import ValidationError

from backtal.settings import read_yaml
from backtal_training.settings import DEMO_RECIPE, Recipe

GRID = {"position_seconds": 0.5, "window_positions": 8}


def test_a_recipe_that_a_checkpoint_keeps_reads_back() -> None:
    recipe = read_yaml(Recipe, DEMO_RECIPE)
    assert recipe.losses.top_k_ratio != 0.125
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_localization_has_the_ratio_of_the_losses() -> None:
    raw = {"name": "x", "grid": GRID, "losses": {"top_k_ratio": 0.3}}
    assert Recipe.model_validate(raw).localization.top_k_ratio == 0.3


def test_two_ratios_are_refused() -> None:
    both = {"losses": {"top_k_ratio": 0.3}, "localization": {"top_k_ratio": 0.2}}
    with pytest.raises(ValidationError, match=r"0\.2 differs from losses\.top_k_ratio 0\.3"):
        Recipe.model_validate({"name": "x", "grid": GRID, **both})
