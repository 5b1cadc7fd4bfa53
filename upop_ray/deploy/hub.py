"""Pushing an export to a model hub."""

from pathlib import Path

from upop_ray.errors import ConfigError

_TOKEN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write"


def require_token(repository: str) -> None:
    """Make sure, before the work, that there is a token and a possible name.

    :raises ConfigError: there is not
    """
    from huggingface_hub import get_token, hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        # builds an address, which looks at the name and asks nobody
        hf_hub_url(repository, "README.md")
    except HFValidationError as error:
        raise ConfigError("--push", f"{repository!r} is no name of a repository", "use OWNER/NAME") from error
    if get_token() is None:
        raise ConfigError("--push", "no token for the hub is at hand", _TOKEN)


def push(folder: Path, repository: str, public: bool) -> str:
    """Upload a folder in one commit into a repository, which is made if it is missing.

    :param public: whether a new repository can be seen by everybody; one that exists stays as it is
    :returns: address of the repository
    :raises ConfigError: the hub cannot be reached, or refuses
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # that of the HTTP library underneath, which differs between versions
    http_error: type[BaseException] = HfHubHTTPError.__bases__[0]
    api = HfApi()
    try:
        url = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Export of upop_ray")
    except HfHubHTTPError as error:
        raise ConfigError("--push", f"{api.endpoint} refused {repository}: {_reason(error)}", _TOKEN) from error
    except (http_error, OSError) as error:
        problem = f"{api.endpoint} cannot be reached: {_reason(error)}"
        raise ConfigError("--push", problem, f"{folder} is complete; push it when the hub can be reached") from error
    return str(url)


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
