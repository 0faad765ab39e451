"""The `openai` SDK's moderations against the gateway: URL, KEY, folder with clean.png and sword.png."""

import base64
import pathlib
import sys

import openai

url, key, folder = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def data_url(name):
    data = base64.b64encode(pathlib.Path(folder, name).read_bytes()).decode()
    return f"data:image/png;base64,{data}"


def moderate(*names, text="what is this?"):
    parts = [{"type": "image_url", "image_url": {"url": data_url(name)}} for name in names]
    return client.moderations.create(
        model="omni-moderation-latest", input=[{"type": "text", "text": text}, *parts]
    )


clean = moderate("clean.png")
assert len(clean.results) == 1 and clean.results[0].flagged is False, clean
bad = moderate("clean.png", "sword.png").results[0]
categories, scores = bad.categories.to_dict(), bad.category_scores.to_dict()
assert bad.flagged is True and categories == {"smoking": False, "beer": False, "sword": True}, bad
assert scores["sword"] > 0.5 > scores["beer"], scores
assert bad.category_applied_input_types.to_dict()["sword"] == ["image"], bad
print("moderations: a clean picture passes, a sword among two is flagged by its rule:", scores)

for refused in ("how are you?", ["a", "b"], [{"type": "text", "text": "a"}]):
    try:
        client.moderations.create(input=refused)
        raise SystemExit(f"text alone was moderated: {refused}")
    except openai.BadRequestError as error:
        assert error.code == "bad_request" and "judges pictures" in error.message, error
print("moderations: text alone is refused with a 400")

try:
    openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).moderations.create(input="x")
    raise SystemExit("a wrong key was taken")
except openai.AuthenticationError as error:
    assert error.code == "invalid_api_key", error
print("moderations: a wrong key is refused with a 401")
