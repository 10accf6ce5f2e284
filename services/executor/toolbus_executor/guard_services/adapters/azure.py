"""Guards of kinds `azure_content_safety` and `azure_prompt_shields` (Azure AI Content Safety)."""

from collections.abc import Sequence
from typing import Any

from toolbus_common.config.guards.services import (
    AzureContentSafetyOptions,
    AzurePromptShieldsOptions,
)
from toolbus_executor.guard_services.adapters.base import (
    NOTHING,
    CheckedContent,
    Limits,
    ServiceFindings,
    invalid,
    member,
    objects,
    rule_name,
)
from toolbus_executor.guard_services.adapters.client import ServiceClient

LONGEST = 10_000  # Unicode characters of one request, in both APIs
KEY_HEADER = "Ocp-Apim-Subscription-Key"
_HIGHEST = {4: 6, 8: 7}  # severity, by the number of levels
_LEVELS = {4: "FourSeverityLevels", 8: "EightSeverityLevels"}
# In these phases, a user or an agent wrote the content; in all others, it is a document.
_PROMPTS = frozenset({"prompts", "arguments"})


class AzureContentSafety:
    """The API `text:analyze`: the severity of harmful content by category, and blocklists."""

    depends_on_call = False
    limits = Limits(LONGEST, LONGEST)

    def __init__(self, client: ServiceClient, options: AzureContentSafetyOptions) -> None:
        self._client = client
        self._options = options
        self._path = f"{client.path}/contentsafety/text:analyze?api-version={options.api_version}"

    async def check(
        self,
        checked: CheckedContent,  # noqa: ARG002 - the interface of an adapter
        texts: Sequence[str],
        seconds: float,
    ) -> ServiceFindings:
        """Analyze one text."""
        options = self._options
        body: dict[str, Any] = {
            "text": texts[0],
            "categories": sorted(options.severity),
            "outputType": _LEVELS[options.levels],
        }
        if options.blocklists:
            body |= {"blocklistNames": [*options.blocklists], "haltOnBlocklistHit": False}
        response = await self._client.post(self._path, body, seconds)
        severities = {
            each.get("category"): each.get("severity")
            for each in objects(response.get("categoriesAnalysis"))
        }
        rules: dict[str, float] = {}
        for category, lowest in options.severity.items():
            severity = severities.get(category)
            if isinstance(severity, bool) or not isinstance(severity, int):
                raise invalid(f"it has no severity of '{category}'")
            if severity >= lowest:
                rules[category] = min(1.0, severity / _HIGHEST[options.levels])
        for match in objects(response.get("blocklistsMatch")):
            rules[rule_name("blocklist", match.get("blocklistName"))] = 1.0
        return ServiceFindings(rules, version=options.api_version) if rules else NOTHING

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AzurePromptShields:
    """The API `text:shieldPrompt`: attacks in prompts and in documents."""

    depends_on_call = False
    limits = Limits(LONGEST, LONGEST)

    def __init__(self, client: ServiceClient, options: AzurePromptShieldsOptions) -> None:
        self._client = client
        self._version = options.api_version
        self._path = (
            f"{client.path}/contentsafety/text:shieldPrompt?api-version={options.api_version}"
        )

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Check one text, as a prompt or as a document."""
        is_prompt = checked.phase in _PROMPTS
        body = {"userPrompt": texts[0]} if is_prompt else {"documents": [texts[0]]}
        response = await self._client.post(self._path, body, seconds)
        if is_prompt:
            attacks = [member(response, "userPromptAnalysis", "attackDetected")]
        else:
            found = objects(response.get("documentsAnalysis"))
            attacks = [each.get("attackDetected") for each in found]
        if len(attacks) != 1 or not isinstance(attacks[0], bool):
            raise invalid("it does not say whether it detected an attack")
        if not attacks[0]:
            return NOTHING
        rule = "user_prompt_attack" if is_prompt else "document_attack"
        return ServiceFindings({rule: 1.0}, version=self._version)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
