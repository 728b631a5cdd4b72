"""The one namespace: its names are the objects of the packages, imported when they are used."""

import subprocess
import sys

import pytest

import concord
import concord_av
import store
import teachers


def test_its_names_are_those_of_the_packages():
    assert concord_av.open_store is store.open
    assert concord_av.create_store is store.create
    assert concord_av.load_teacher is teachers.load
    assert concord_av.ConcordError is concord.ConcordError
    assert all(getattr(concord_av, name) is not None for name in concord_av.__all__)
    assert concord_av.__version__ == concord.__version__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = concord_av.nosuch


def test_importing_it_imports_nothing_else():
    code = "import sys, concord_av; print({'numpy', 'torch', 'store'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
