"""Requests that must reach the upstream, so that a pass through the gateway is not vacuous."""

from typing import Any

# The named requests of the suite to a server, as recorded in a direct run.
_BOTH = {
    "tools": {
        "test_simple_text", "test_image_content", "test_audio_content", "test_embedded_resource",
        "test_multiple_content_types", "test_tool_with_progress", "test_error_handling",
    },
    "prompts": {
        "test_simple_prompt", "test_prompt_with_arguments", "test_prompt_with_embedded_resource",
        "test_prompt_with_image",
    },
    "resources": {"test://static-text", "test://static-binary", "test://template/123/data"},
    "methods": {"completion/complete"},
}  # fmt: skip
_ONLY = {
    "2026-07-28": {
        "tools": {
            "test_missing_capability", "test_streaming_elicitation", "test_logging_tool",
            "test_trigger_tool_change", "test_trigger_prompt_change",
            "test_input_required_result_elicitation", "test_input_required_result_sampling",
            "test_input_required_result_list_roots", "test_input_required_result_request_state",
            "test_input_required_result_multiple_inputs", "test_input_required_result_multi_round",
            "test_input_required_result_tampered_state",
            "test_input_required_result_capabilities",
        },
        "prompts": {"test_input_required_result_prompt"},
    },
    "2025-11-25": {
        "tools": {
            "test_tool_with_logging", "test_sampling", "test_elicitation",
            "test_elicitation_sep1034_defaults", "test_elicitation_sep1330_enums",
        },
    },
}  # fmt: skip


def unseen(revision: str, seen: dict[str, Any]) -> list[str]:
    """Return complaints about requests that the suite made and the upstream never received."""
    complaints = []
    for kind, names in _BOTH.items():
        wanted = names | _ONLY[revision].get(kind, set())
        missing = sorted(wanted - set(seen[kind]))
        complaints += [f"vacuous: the upstream never saw {kind} {name}" for name in missing]
    return complaints
