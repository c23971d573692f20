"""Conda, Docker and Apptainer give the environment that the tests ran in; that they build is not tested here."""

import re
import shlex
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cohorts import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVS = ROOT / "envs"


def locked():
    """Name -> version of the lock."""
    pins = (Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip())
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def conda():
    packages = yaml.safe_load((ENVS / "gigaseg.yaml").read_text())["dependencies"]
    python = next(package.split("=")[1] for package in packages if package.startswith("python "))
    return python, (ENVS / "gigaseg.post-deploy.sh").read_text(), []


def docker():
    text = (ENVS / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    return base(text, "FROM "), text, [name for names in copied for name in shlex.split(names)]


def apptainer():
    text = (ENVS / "gigaseg.def").read_text()
    files = re.search(r"^%files\n((?:    .+\n)+)", text, re.MULTILINE)[1]
    return base(text, "From: "), text, [line.split()[0] for line in files.splitlines()]


def base(text, word):
    return re.search(rf"^{word}python:(\d+\.\d+)-slim$", text, re.MULTILINE)[1]


@pytest.mark.parametrize("environment", [conda, docker, apptainer])
def test_an_environment_has_the_python_of_the_project_and_the_lock_and_then_the_package_alone(environment):
    python, text, files = environment()
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert python == "3.11", "the one that the lock was made for"
    lock, package = re.findall(r"pip install .+", text)
    assert re.search(r"--requirement \S*requirements\.lock", lock)
    assert "--no-deps" in package
    assert [name for name in files if not (ROOT / name).exists()] == []
    if files:
        assert {"requirements.lock", "pyproject.toml", PROJECT["readme"], "src"} == set(files)


@pytest.mark.parametrize("group", ["dependencies", *PROJECT["optional-dependencies"]])
def test_the_lock_has_all_that_the_project_needs_at_versions_that_it_accepts(group):
    versions = locked()
    needed = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    for requirement in map(Requirement, needed):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock"
        assert requirement.specifier.contains(version), f"{requirement} but the lock has {version}"
