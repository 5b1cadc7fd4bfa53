"""Errors a user can cause, each with the field, the value and the cure in one line."""


class UpopError(Exception):
    """The base of every error of this package that a user can cure; entry points print it and exit with code 2."""


class ConfigError(UpopError):
    """A setting is wrong.

    :param field: dotted name of the setting, for example ``search.ratio``
    :param problem: what is wrong with it, with the value
    :param cure: what to write instead
    """

    def __init__(self, field: str, problem: str, cure: str) -> None:
        super().__init__(f"{field}: {problem}; {cure}")
        self.field = field
        self._parts = (field, problem, cure)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, str, str]]:
        """As it is made, so that it can come from another process."""
        return type(self), self._parts


class DataError(UpopError):
    """A data set, shard or row cannot be used; the message names the file."""


class StoreError(UpopError):
    """The store cannot be read or written; the message names the path."""


class CheckpointError(UpopError):
    """A checkpoint or model folder cannot be used; the message names the file."""


class BudgetError(UpopError):
    """The asked budget cannot be met, or was missed by more than the tolerance."""
