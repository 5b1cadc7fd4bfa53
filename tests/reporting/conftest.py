"""What tests of reports share."""

import pytest

from tests.reporting.results import Template, template


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A real tiny point, of which sweeps are made."""
    return template(tmp_path_factory.mktemp("real"))
