"""The packaged configurations: found by name from any folder, and by path in a checkout."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from house import ROOT

from student import recipes
from student.config import ConfigError, read_options
from student.train import main as train


@pytest.mark.parametrize("given", ["strangers", "configs/strangers.yaml"])
def test_a_recipe_is_found_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.find(Path(given)) == recipes.FOLDER / "strangers.yaml"
    assert read_options(recipes.find(Path(given)))["balance"] == "source"


def test_a_file_of_the_users_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strangers").write_text("lr: 0.5")
    assert read_options(recipes.find(Path("strangers"))) == {"lr": 0.5}


def test_the_folder_of_a_checkout_is_the_packaged_one():
    assert (ROOT / "configs").resolve() == recipes.FOLDER.resolve()
    assert recipes.names(recipe=True) == ["paper", "strangers"]
    assert recipes.names(recipe=False) == ["cpu2", "gpu", "gpus", "nodes"]


@pytest.mark.parametrize("given", ["nosuch", "configs/nosuch.yaml", "elsewhere/strangers.yaml", "gpus"])
def test_anything_else_is_refused_in_one_line(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no configuration .*\(paper, strangers\)"):
        recipes.find(Path(given))
    done = CliRunner().invoke(train, ["--config", given, "--store", "s", "--output", "o"])
    assert done.exit_code == 2
    assert f"there is no configuration {given}" in done.output


def test_the_command_lists_them_and_prints_a_path():
    listed = CliRunner().invoke(recipes.main, []).output.splitlines()
    assert [line.split()[0] for line in listed] == ["paper", "strangers", "cpu2", "gpu", "gpus", "nodes"]
    printed = CliRunner().invoke(recipes.main, ["gpus"]).output.strip()
    assert Path(printed) == recipes.FOLDER / "gpus.yaml"
    assert CliRunner().invoke(recipes.main, ["nosuch"]).exit_code == 2
