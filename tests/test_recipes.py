"""Recipes: the published values, ours with their reasons, and overrides that are refused before anything runs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ncdss_lib.recipes import LAPTOP, Recipe, describe, flatten, load_recipe, sections
from ncdss_lib.system.errors import InputError

#: The published values, field by field.
PUBLISHED = {
    "data.size": 512,
    "data.target_size": 512,
    "data.features": "online",
    "data.base_list": "published",
    "data.val_masks": "SegmentationClassAug",
    "data.coco_masks": "published",
    "data.label_border": 0,
    "data.flip": 0.5,
    "data.rotation": 5.0,
    "data.scale": (0.75, 1.25),
    "data.jitter": (0.5, 0.5, 0.5, 0.25),
    "data.workers": None,
    "model.encoder": "resnet50.tv_in1k",
    "model.output_stride": 8,
    "model.stages": (4,),
    "model.head": "aspp",
    "model.head_channels": 256,
    "model.dropout": 0.5,
    "model.frozen_stages": 3,
    "base_training.epochs": 60,
    "base_training.batch_size": 16,
    "base_training.milestone": 25,
    "basic_framework.epochs": 30,
    "basic_framework.batch_size": 8,
    "basic_framework.milestone": 15,
    "basic_framework.init": "imagenet",
    "eums.epochs": 30,
    "eums.batch_size": 8,
    "eums.milestone": 15,
    "eums.init": "imagenet",
    "eums.teacher_init": "independent",
    "eums.teacher_mode": "train",
    "eums.teacher_buffers": "own",
    "eums.teacher_momentum": 0.99,
    "eums.confidence": 0.0,
    "eums.ramp_up_epochs": 5.0,
    "eums.max_weight": 1.0,
    "eums.reassign_epochs": (5,),
    "eums.reassign_share": 0.5,
    "eums.inference": "student",
    **{
        f"{stage}.{field}": value
        for stage in ("base_training", "basic_framework", "eums")
        for field, value in {
            "steps_per_epoch": None,
            "lr": 0.1,
            "encoder_lr": 0.001,
            "schedule": "step",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "track_best": True,
            "select": "best_val",
        }.items()
    },
    "clustering.base_confidence": 0.9,
    "clustering.mask_size": "network",
    "clustering.min_area_pixels": 1500,
    "clustering.min_area_fraction": 0.0,
    "clustering.pca_dims": 32,
    "clustering.whiten": True,
    "clustering.n_init": 10,
    "clustering.over_clustering": 2,
    "clustering.uncertain_label": 0,
    "entropy_ranking.clean_share": 0.67,
    "entropy_ranking.per": "dataset",
    "evaluation.size": 512,
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_paper_has_the_published_value(key):
    found = flatten(load_recipe("paper"))[key]
    assert found == PUBLISHED[key]
    assert type(found) is type(PUBLISHED[key])


def test_the_defaults_are_the_paper_recipe():
    assert load_recipe("paper") == Recipe()


def test_paper_has_the_published_schedules_of_coco():
    pascal, coco = flatten(load_recipe("paper")), flatten(load_recipe("paper", dataset="coco20i"))
    changed = {key: value for key, value in coco.items() if value != pascal[key]}
    assert changed == {
        "base_training.epochs": 20,
        "base_training.milestone": 15,
        "base_training.select": "last",
        "basic_framework.epochs": 20,
        "eums.epochs": 20,
        "eums.batch_size": 6,
    }
    assert coco["basic_framework.milestone"] == coco["eums.milestone"] == 15
    assert load_recipe("laptop", dataset="coco20i") == load_recipe("laptop")
    assert load_recipe("paper", ["eums.epochs=3"], "coco20i").eums.epochs == 3


@pytest.mark.parametrize("key", LAPTOP)
def test_each_difference_of_laptop_is_a_field_with_another_value_and_a_reason(key):
    value, reason = LAPTOP[key]
    paper, laptop = flatten(load_recipe("paper")), flatten(load_recipe("laptop"))
    assert laptop[key] == value
    assert paper[key] != value
    if reason.startswith("see "):
        assert len(LAPTOP[reason.removeprefix("see ")][1].split()) > 3
    else:
        assert len(reason.split()) > 3


def test_laptop_differs_nowhere_else():
    paper, laptop = flatten(load_recipe("paper")), flatten(load_recipe("laptop"))
    assert {key for key in paper if paper[key] != laptop[key]} == set(LAPTOP)


def test_every_field_is_described():
    for section, kind in sections().items():
        assert kind.__doc__
        for name, info in kind.model_fields.items():
            assert info.description, f"{section}.{name}"


@pytest.mark.parametrize("name", ["paper", "laptop"])
def test_describe_shows_every_field_with_its_value_and_reason(name):
    recipe = load_recipe(name, ["eums.lr=0.25"])
    text = describe(recipe)
    for key, value in flatten(recipe).items():
        assert f"{key.partition('.')[2]} = {value}" in text
    assert ("model that already knows the clusters" in text) == (name == "laptop")


# --- overrides --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("eums.epochs=5", 5),
        ("eums.steps_per_epoch=null", None),
        ("eums.lr=0.01", 0.01),
        ("eums.lr=1", 1.0),
        ("eums.lr=1e-2", 0.01),
        ("model.stages=[2, 4]", (2, 4)),
        ("data.scale=[0.5, 1.5]", (0.5, 1.5)),
        ("clustering.whiten=false", False),
        ("entropy_ranking.per=dataset", "dataset"),
        ("model.weights=/a/b=c.pth", "/a/b=c.pth"),
        (" eums.select = best_val", "best_val"),
        ("eums.reassign_epochs=[]", ()),
    ],
)
def test_overrides_are_parsed_as_yaml(override, value):
    key = override.partition("=")[0].strip()
    assert flatten(load_recipe("laptop", [override]))[key] == value


def test_the_last_override_wins_and_others_stay():
    recipe = load_recipe("laptop", ["eums.epochs=5", "eums.epochs=6"])
    assert recipe.eums.epochs == 6
    assert recipe.eums.init == LAPTOP["eums.init"][0]


REFUSED = {
    "eums.epoch=5": ("unknown field 'epoch' of eums", "did you mean 'epochs'?"),
    "euns.epochs=5": ("unknown stage 'euns'", "did you mean 'eums'?"),
    "name.x=1": ("unknown stage 'name'", "Valid:"),
    "epochs=5": ("not of the form stage.field=value", "eums.epochs=5"),
    "eums.epochs": ("not of the form stage.field=value",),
    "": ("not of the form stage.field=value",),
    "eums.epochs=many": ("eums.epochs='many' does not fit", "valid integer"),
    "eums.epochs=0": ("eums.epochs=0 does not fit", "greater than or equal to 1"),
    "eums.epochs=2.5": ("eums.epochs=2.5 does not fit", "integer"),
    "eums.epochs=true": ("eums.epochs=True does not fit", "integer"),
    "eums.epochs=null": ("eums.epochs=None does not fit", "integer"),
    "eums.lr=0": ("eums.lr=0 does not fit", "greater than 0"),
    "eums.momentum=1": ("eums.momentum", "less than 1"),
    "eums.teacher_mode=evil": ("eums.teacher_mode='evil' does not fit", "'train' or 'eval'"),
    "data.label_border=1": ("data.label_border=1 does not fit", "0 or 255"),
    "data.scale=[1]": ("data.scale", "does not fit", "too few values"),
    "data.scale=[-1, 1]": ("data.scale=[-1.0, 1.0] does not fit", "low <= high"),
    "data.scale=[2, 1]": ("data.scale=[2.0, 1.0] does not fit", "low <= high"),
    "data.scale=[.nan, 1]": ("data.scale=nan does not fit", "finite"),
    "data.jitter=[0, 0, 0, 1]": ("data.jitter=[0.0, 0.0, 0.0, 1.0] does not fit", "hue in 0..0.5"),
    "eums.lr=.inf": ("eums.lr=inf does not fit", "finite"),
    "eums.ramp_up_epochs=.inf": ("eums.ramp_up_epochs=inf does not fit", "finite"),
    "model.stages=[4, 2]": ("model.stages=[4, 2] does not fit", "rising"),
    "eums.reassign_epochs=[-1]": ("eums.reassign_epochs=[-1] does not fit", "from 0 on"),
    "model.stages=[]": ("model.stages=() does not fit", "at least 1"),
    "model.stages=[a]": ("model.stages='a' does not fit", "integer"),
    "eums.lr=[": ("eums.lr=[", "not valid YAML"),
    "clustering.whiten=1": ("clustering.whiten=1 does not fit", "boolean"),
    "entropy_ranking.clean_share=1.5": ("entropy_ranking.clean_share=1.5", "less than 1"),
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_wrong_override_is_refused_in_one_line(override):
    with pytest.raises(InputError) as caught:
        load_recipe("laptop", [override])
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    for part in REFUSED[override]:
        assert part in message


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown recipe 'papr': did you mean 'paper'"):
        load_recipe("papr")


def test_recipes_are_frozen():
    recipe = load_recipe("laptop")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.eums.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        recipe.eums = None  # type: ignore[assignment]


def test_the_ablation_is_made_by_default_on_toyscenes_alone():
    assert load_recipe("laptop", dataset="toyscenes").ablation.enabled
    assert not load_recipe("laptop", ["ablation.enabled=false"], "toyscenes").ablation.enabled
    for recipe, dataset in (("laptop", "pascal5i"), ("laptop", None), ("paper", "toyscenes")):
        assert not load_recipe(recipe, dataset=dataset).ablation.enabled
