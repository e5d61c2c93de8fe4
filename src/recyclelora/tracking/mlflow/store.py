"""The MLflow store: its address, experiments, and runs that are found or else created, once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recyclelora.config.run import Config
from recyclelora.system.errors import UserError
from recyclelora.system.redaction import redacted
from recyclelora.system.sqlite import make_database, sqlite_url
from recyclelora.system.storage import taking_turns
from recyclelora.tracking.mlflow.deadline import bound_requests
from recyclelora.tracking.process import NAMED

DATABASE = "mlflow.db"
"""In the outputs folder: the store where no other is named."""
REQUEST_SECONDS = "10"
"""For which a server may be silent."""


@dataclass(frozen=True)
class Store:
    """One MLflow store: a server, or a database, whose artifacts then lie in the outputs folder."""

    uri: str
    outputs: Path

    @classmethod
    def of(cls, config: Config, outputs: Path, to: str | None = None) -> Store:
        """The store that the user has named, else SQLite beside the runs.

        Args:
            config: of a run, perhaps somebody else's; what it asks for is no address to send credentials to
            outputs: the folder that the run lies in
            to: an address, whatever the run asks for

        Raises:
            UserError: the run asks for an address that the user has not named.
        """
        asked, named = config.tracking.uri, to or os.environ.get(NAMED)
        if asked is not None and asked != named and to is None:
            raise UserError(
                f"the run asks for the MLflow server {redacted(asked)}, which you have not named; if it may have your "
                f"credentials, add --to {redacted(asked)}, or set {NAMED}"
            )
        return cls(named or sqlite_url(outputs / DATABASE), outputs)

    @property
    def name(self) -> str:
        """The address without a password: what may be written down."""
        return redacted(self.uri)

    @property
    def is_database(self) -> bool:
        """Whether this process opens the database itself."""
        return not self.uri.startswith(("http://", "https://"))

    @cached_property
    def client(self) -> Any:
        """MLflow's client, which fails soon; we ask again later ourselves, and never twice for a new run."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        bound_requests()
        with self._first_in_line():
            if self.uri == sqlite_url(self.outputs / DATABASE):
                make_database(self.outputs / DATABASE, f"set {NAMED} to a server")
            client = mlflow.MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)  # creates the schema
        return client

    def answers(self) -> bool:
        """Whether it works at all: where it does not, the next run would fare no better than this one."""
        try:
            self.client.search_experiments(max_results=1)
        except Exception:  # whatever a server or database does
            return False
        return True

    @contextlib.contextmanager
    def _first_in_line(self) -> Iterator[None]:
        """A database whose schema is created twice at once is broken for good."""
        with taking_turns(self.outputs / ".mlflow.lock") if self.is_database else contextlib.nullcontext():
            yield

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name."""
        from mlflow.exceptions import MlflowException

        existing = self.client.get_experiment_by_name(name)
        if existing is None:
            location = (self.outputs / "mlartifacts" / name).as_uri() if self.is_database else None
            # else MLflow 3 opens an experiment with its pages for language-model traces
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                return str(self.client.create_experiment(name, artifact_location=location, tags=kind))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                existing = self.client.get_experiment_by_name(name)  # another process was faster
                if existing is None:
                    raise
        if existing.lifecycle_stage == "deleted":
            raise UserError(
                f"{self.name}: the experiment {name} was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {existing.experiment_id}), or choose another: tracking.experiment=<name>"
            )
        return str(existing.experiment_id)

    def find_or_create(self, experiment: str, identity: dict[str, str], tags: dict[str, str], started: int) -> str:
        """The run with these identifying tags.

        The answer to an earlier creation may have been lost, or come after we had given up: of several runs the first
        one counts and the others, which nobody has written to, are removed.

        Args:
            experiment: its id
            identity: tags that no other run has; the values hold no quotes
            tags: of a new run
            started: of a new run, milliseconds since 1970
        """
        known = self._with_tags(experiment, identity)
        if not known:
            self.client.create_run(experiment, start_time=started, tags=tags | identity)
            known = self._with_tags(experiment, identity)
        if not known:
            raise UserError(f"{self.name}: has made a run and does not know it; is this an MLflow server?")
        for doubled in known[1:]:
            if not doubled.data.metrics:
                self.client.delete_run(doubled.info.run_id)
        return str(known[0].info.run_id)

    def _with_tags(self, experiment: str, identity: dict[str, str]) -> list[Any]:
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
        found = self.client.search_runs([experiment], wanted, max_results=50)
        return sorted(found, key=lambda run: (not run.data.metrics, run.info.start_time, run.info.run_id))

    def log_inputs(self, run_id: str, inputs: list[Any]) -> bool:
        """Tell which data sets a run uses.

        MLflow looks whether the experiment has a data set and then adds it: of two runs that do so at once it refuses
        one, which finds the data set when it asks again.

        Returns:
            whether the server keeps them; before 2.4 none did.
        """
        from mlflow.exceptions import MlflowException

        for left in reversed(range(1 + len(inputs))):  # another run may be faster with each of them
            try:
                self.client.log_inputs(run_id, inputs)
                return True
            except MlflowException as error:
                if error.error_code == "ENDPOINT_NOT_FOUND":
                    return False
                if error.error_code != "BAD_REQUEST" or left == 0:
                    raise
        return True

    def set_status(self, run_id: str, status: str, ended: int | None) -> None:
        """Tell what has become of a run, and when (milliseconds since 1970) it ended; None: it has not."""
        if ended is None:
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status=status, end_time=ended)
