"""Addresses of the lists of models, at the clouds' own addresses and at configured ones."""

import pytest

from toolbus_common.config import Provider
from toolbus_executor.providers.endpoints.paths import list_urls_of, next_page

PAIR = {"access_key": "a", "secret_key": "s"}
MODELS = "foundation-models?byInferenceType=ON_DEMAND&byOutputModality=TEXT"
PROFILES = "inference-profiles?type=SYSTEM_DEFINED&maxResults=1000"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("", "https://bedrock.eu-west-1.amazonaws.com"),
        (
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
            "https://bedrock.eu-west-1.amazonaws.com",
        ),
        ("https://proxy.example/aws/", "https://proxy.example/aws"),
    ],
)
def test_bedrock_lists_models_and_profiles(url: str, base: str) -> None:
    provider = Provider(kind="bedrock", region="eu-west-1", credentials=PAIR, url=url)
    assert list_urls_of(provider) == (f"{base}/{MODELS}", f"{base}/{PROFILES}")


@pytest.mark.parametrize(
    ("url", "location", "base"),
    [
        ("", "europe-west1", "https://europe-west1-aiplatform.googleapis.com"),
        ("", "global", "https://aiplatform.googleapis.com"),
        ("", "eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("https://proxy.example/v1", "global", "https://proxy.example"),
        ("https://proxy.example/google", "global", "https://proxy.example/google"),
    ],
)
def test_vertex_lists_the_models_of_two_publishers(url: str, location: str, base: str) -> None:
    provider = Provider(
        kind="vertex", project="p", location=location, credentials={"key": "k"}, url=url
    )
    assert list_urls_of(provider) == tuple(
        f"{base}/v1beta1/publishers/{each}/models?pageSize=100" for each in ("google", "anthropic")
    )


def test_the_token_of_a_page_cannot_change_the_address() -> None:
    assert next_page("bedrock", "https://a/b?c=d", "x&y=/ z") == (
        "https://a/b?c=d&nextToken=x%26y%3D%2F%20z"
    )
    assert not next_page("bedrock", "https://a/b?c=d", "")
    assert not next_page("openai", "https://a/b", "x")
