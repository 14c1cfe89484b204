"""One thread here too."""

from tests.models.conftest import _one_thread  # noqa: F401 - a fixture
