"""Options of the guards that ask another service, and the address of each service."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from toolbus_common.config.base import ConfigModel

# Credentials of the kind `bedrock`: a pair of keys of AWS, and optionally a session token.
AWS_PAIR, AWS_TOKEN = ("access_key", "secret_key"), "session_token"
KEY = "key"
_CATEGORIES = ("Hate", "SelfHarm", "Sexual", "Violence")
_PLACE = r"^[a-z][a-z0-9-]{0,31}$"


class ServiceOptions(ConfigModel):
    """Options of every guard that asks a service.

    `cache` is the time in seconds in which an equal content is not sent again; 0 disables it.
    `concurrency` limits the concurrent requests to the service, from each executor.
    """

    cache: float = Field(default=60.0, ge=0, le=86_400)
    concurrency: int = Field(default=32, ge=1, le=1024)


class HttpOptions(ServiceOptions):
    """Options of the kind `http`.

    `form` is the form of the request: `toolbus`, `litellm` (its generic guardrail API), or
    `openai` (a moderation API, with the name of its `model`). `send` is what a request of the form
    `toolbus` contains: the texts, the whole document, or both. `longest` is the most characters in
    one request.
    """

    form: Literal["toolbus", "litellm", "openai"] = "toolbus"
    send: Literal["texts", "content", "both"] = "texts"
    model: str = Field(default="", max_length=256)
    longest: int = Field(default=100_000, ge=1000, le=4_000_000)

    @model_validator(mode="after")
    def _fits_its_form(self) -> Self:
        if self.form != "toolbus" and self.send != "texts":
            raise ValueError("'send' applies only to the form 'toolbus'; remove it")
        if self.form != "openai" and self.model:
            raise ValueError("'model' applies only to the form 'openai'; remove it")
        return self


class McpOptions(ServiceOptions):
    """Options of the kind `mcp`.

    `send` is what the tool's arguments contain: the texts, the whole document, or both. `longest`
    is the most characters in one call.
    """

    send: Literal["texts", "content", "both"] = "texts"
    longest: int = Field(default=100_000, ge=1000, le=4_000_000)


class BedrockOptions(ServiceOptions):
    """Options of the kind `bedrock`: a guardrail of Amazon Bedrock, its version, and its region.

    With `ambient`, the credentials of the executor's machine are used.
    """

    guardrail: str = Field(
        pattern=r"^([a-z0-9]+|arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:guardrail/[a-z0-9]+)$"
    )
    version: str = Field(default="DRAFT", pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")
    region: str = Field(pattern=_PLACE)
    ambient: bool = False


class AzureContentSafetyOptions(ServiceOptions):
    """Options of the kind `azure_content_safety`.

    `severity` is the lowest severity that counts (0 to 7), for each category: Hate, SelfHarm,
    Sexual and Violence. Categories without one are not analyzed. `levels` is the number of levels
    of severity. `blocklists` are the names of blocklists of the resource.
    """

    severity: dict[Literal["Hate", "SelfHarm", "Sexual", "Violence"], int] = Field(
        default_factory=lambda: dict.fromkeys(_CATEGORIES, 2)  # type: ignore[arg-type]
    )
    levels: Literal[4, 8] = 4
    blocklists: tuple[str, ...] = Field(default=(), max_length=64)
    api_version: str = Field(default="2023-10-01", pattern=r"^\d{4}-\d\d-\d\d(-preview)?$")

    @model_validator(mode="after")
    def _has_severities(self) -> Self:
        if not self.severity and not self.blocklists:
            raise ValueError("needs a category in 'severity', or a name in 'blocklists'")
        for name, value in self.severity.items():
            if not 1 <= value <= 7:  # noqa: PLR2004 - the highest severity
                raise ValueError(f"'severity' of {name} must be from 1 to 7")
        return self


class AzurePromptShieldsOptions(ServiceOptions):
    """Options of the kind `azure_prompt_shields`."""

    api_version: str = Field(default="2024-09-01", pattern=r"^\d{4}-\d\d-\d\d(-preview)?$")


class PatronusEvaluator(ConfigModel):
    """An evaluator of Patronus AI, and the name of its criteria."""

    evaluator: str = Field(min_length=1, max_length=256)
    criteria: str = Field(default="", max_length=256)


class PatronusOptions(ServiceOptions):
    """Options of the kind `patronus`.

    Content that fails any of the `evaluators` is a finding. `capture` says which evaluations
    Patronus AI stores, and `app` is the application that they belong to.
    """

    evaluators: tuple[PatronusEvaluator, ...] = Field(min_length=1, max_length=32)
    capture: Literal["none", "fails-only", "all"] = "none"
    app: str = Field(default="", max_length=256)


class GraySwanOptions(ServiceOptions):
    """Options of the kind `gray_swan`.

    `threshold` is the lowest violation that counts (0 to 1). `policy` and `policies` are ids of
    policies, and `rules` are further rules by name. `reasoning` is Cygnal's mode of reasoning.
    """

    threshold: float = Field(default=0.5, gt=0, le=1)
    policy: str = Field(default="", max_length=256)
    policies: tuple[str, ...] = Field(default=(), max_length=32)
    rules: dict[str, str] = Field(default_factory=dict, max_length=64)
    reasoning: Literal["off", "hybrid", "thinking"] = "off"


class LakeraOptions(ServiceOptions):
    """Options of the kind `lakera`. `project` is the id of the project whose policy applies."""

    project: str = Field(default="", max_length=256)


class ModelArmorOptions(ServiceOptions):
    """Options of the kind `model_armor`: a template in a project and a location of Google Cloud.

    With `ambient`, the credentials of the executor's machine are used.
    """

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9.:-]{0,62}$")
    location: str = Field(pattern=_PLACE)
    template: str = Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")
    ambient: bool = False


OPTIONS: Mapping[str, type[ServiceOptions]] = {
    "http": HttpOptions,
    "mcp": McpOptions,
    "bedrock": BedrockOptions,
    "azure_content_safety": AzureContentSafetyOptions,
    "azure_prompt_shields": AzurePromptShieldsOptions,
    "patronus": PatronusOptions,
    "gray_swan": GraySwanOptions,
    "lakera": LakeraOptions,
    "model_armor": ModelArmorOptions,
}
_URLS = {
    "patronus": "https://api.patronus.ai",
    "gray_swan": "https://api.grayswan.ai",
    "lakera": "https://api.lakera.ai",
}
# Kinds whose service accepts only requests with a key.
_NEED_KEY = (
    "azure_content_safety", "azure_prompt_shields", "patronus", "gray_swan", "lakera",
)  # fmt: skip
_NEED_URL = {
    "http": "the 'url' of the service",
    "azure_content_safety": (
        "the 'url' of the resource, such as https://NAME.cognitiveservices.azure.com"
    ),
    "azure_prompt_shields": (
        "the 'url' of the resource, such as https://NAME.cognitiveservices.azure.com"
    ),
}


def options_of(kind: str, options: Mapping[str, Any]) -> ServiceOptions:
    """Return the options of a guard that asks a service. Raises `pydantic.ValidationError`."""
    return OPTIONS[kind].model_validate(dict(options))


def service_problems(
    kind: str, url: str, credentials: Mapping[str, str], options: Mapping[str, Any]
) -> list[str]:
    """Return what is wrong with the settings of a guard that asks a service."""
    problems = []
    if kind in _NEED_URL and not url:
        problems.append(f"needs {_NEED_URL[kind]}")
    if kind == "mcp" and (url or credentials):
        problems.append("'url' and 'key' do not apply to guards of kind 'mcp'; remove them")
    try:
        ambient = bool(getattr(options_of(kind, options), "ambient", False))
    except ValidationError as error:
        problems += [_problem(each) for each in error.errors()]
        ambient = bool(options.get("ambient"))
    return [*problems, *_credential_problems(kind, set(credentials), ambient=ambient)]


def service_url(kind: str, url: str, options: Mapping[str, Any]) -> str:
    """Return the address of a service; empty for a kind that is not called over HTTP."""
    if url:
        return url
    if kind == "bedrock":
        return f"https://bedrock-runtime.{options.get('region', '')}.amazonaws.com"
    if kind == "model_armor":
        return f"https://modelarmor.{options.get('location', '')}.rep.googleapis.com"
    return _URLS.get(kind, "")


def _credential_problems(kind: str, names: set[str], *, ambient: bool) -> Iterator[str]:
    known = {KEY, *AWS_PAIR, AWS_TOKEN} if kind == "bedrock" else {KEY}
    if unknown := sorted(names - known):
        yield f"'credentials' has the unknown name '{unknown[0]}'; use {' or '.join(sorted(known))}"
    if ambient and names:
        yield "has 'ambient' and 'credentials'; remove one of them"
    if kind in _NEED_KEY and KEY not in names:
        yield "needs the key of the service"
    if kind == "model_armor" and not ambient and KEY not in names:
        yield "needs the key of a service account as 'key', or 'options: {ambient: true}'"
    if kind == "bedrock":
        yield from _pair_problems(names, ambient=ambient)


def _pair_problems(names: set[str], *, ambient: bool) -> Iterator[str]:
    pair = names & {*AWS_PAIR, AWS_TOKEN}
    if not ambient and not names:
        yield (
            "needs 'key', 'credentials: {access_key, secret_key}', or 'options: {ambient: true}'"
        )
    if pair and (missing := [each for each in AWS_PAIR if each not in pair]):
        yield f"'credentials' needs {' and '.join(missing)} too"
    if pair and KEY in names:
        yield "has 'key' and a pair of keys; remove one of them"


def _problem(error: Any) -> str:
    """Return one mistake in the options as a text. It never contains the value."""
    place = ".".join(str(each) for each in ("options", *error["loc"]))
    text = re.sub(r"^Value error, ", "", error["msg"])
    return f"{place}: {text}"
