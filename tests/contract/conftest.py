"""What several contract tests share: one MLflow server for the whole session."""

from collections.abc import Iterator

import pytest

from tests.contract.mlflow_rig import running_mlflow


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        yield url
