"""The `openai` SDK against the gateway: images, edits, streams, addresses, errors.

Arguments: the gateway's address and an API key. The gateway's upstream draws by the prompt: see `clients.rs` among the
gateway's tests.
"""

import asyncio
import base64
import io
import struct
import sys
import urllib.request

import openai

URL, KEY = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
checks = 0


def check(what, holds, *found):
    global checks
    if not holds:
        sys.exit(f"FAILED: {what}: {found}")
    checks += 1
    print(f"ok: {what}")


def png_size(text):
    data = base64.b64decode(text)
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), data[:8]
    assert b"secret" not in data, "the upstream's text came along"
    return struct.unpack(">II", data[16:24])


def raised(kind, **arguments):
    try:
        client.images.generate(**arguments)
    except kind as error:
        return error
    sys.exit(f"FAILED: expected {kind.__name__} for {arguments}")


def generations():
    image = client.images.generate(prompt="a person", size="64x64", quality="auto")
    check("images.generate gives a picture", png_size(image.data[0].b64_json) == (64, 64))
    check("with its shape", (image.size, image.output_format, image.background) == ("64x64", "png", "opaque"), image)
    raw = client.images.with_raw_response.generate(prompt="a person", n=2)
    decisions = raw.headers["x-cluegate-decision"].split(", ")
    check("and a header with each decision", len(decisions) == len(raw.parse().data) == 2, decisions)

    mixed = client.images.generate(prompt="sword:1", n=3).data
    outcomes = [image.cluegate["outcome"] for image in mixed]
    check("one bad picture costs only itself", outcomes == ["released", "withheld", "released"], outcomes)
    check("what stands in for it is a picture", png_size(mixed[1].b64_json) == (64, 64))

    jpeg = client.images.generate(prompt="a person", output_format="jpeg", output_compression=60)
    check("JPEG", base64.b64decode(jpeg.data[0].b64_json).startswith(b"\xff\xd8\xff"))

    url = client.images.generate(prompt="a person", response_format="url").data[0].url
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        check("an address that serves the file", answer.read(8) == b"\x89PNG\r\n\x1a\n", url)

    async def several():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY) as later:
            return await asyncio.gather(*(later.images.generate(prompt=f"a person {i}") for i in range(4)))

    answers = asyncio.run(several())
    check("AsyncOpenAI, four at once", all(png_size(answer.data[0].b64_json) for answer in answers))
    check("models.list", [model.id for model in client.models.list()] == ["scripted"])


def edits():
    picture = base64.b64decode(client.images.generate(prompt="a person").data[0].b64_json)
    edited = client.images.edit(image=io.BytesIO(picture), prompt="a person with a hat", input_fidelity=None)
    check("images.edit of one picture", png_size(edited.data[0].b64_json) == (64, 64))
    # A PNG of 1 x 1 transparent pixel.
    mask = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR4nGNgAAIAAAUAAXpeqz8AAAAASUVORK5CYII="
    )
    several = [("a.png", picture, "image/png"), ("b.png", picture, "image/png")]
    edited = client.images.edit(image=several, mask=("m.png", mask), prompt="a hat", n=2, size="64x64")
    check("images.edit of several, with a mask", len(edited.data) == 2)
    events = list(client.images.edit(image=several, prompt="a hat", stream=True, partial_images=1))
    kinds = [event.type for event in events]
    check("a streamed edit", kinds == ["image_edit.partial_image", "image_edit.completed"], kinds)


def streams():
    events = list(client.images.generate(prompt="a person", stream=True, partial_images=2))
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    check("a stream with partial images", kinds == ["partial_image", "partial_image", "completed"], kinds)
    check("in order", [event.partial_image_index for event in events[:2]] == [0, 1])
    check("all of them pictures", all(png_size(event.b64_json) == (64, 64) for event in events))
    check("with usage", events[2].usage.total_tokens == 0)
    events = list(client.images.generate(prompt="sword:0", n=2, stream=True))
    outcomes = sorted(event.cluegate["outcome"] for event in events)
    check("a stream with a withheld picture", outcomes == ["released", "withheld"], outcomes)
    try:
        list(client.images.generate(prompt="sword:0", stream=True, partial_images=1))
        sys.exit("FAILED: a blocked stream raised nothing")
    except openai.APIError as error:
        check("a blocked stream raises", error.code == "moderation_blocked", error.code)


def errors():
    error = raised(openai.BadRequestError, prompt="sword:0")
    told = (error.status_code, error.code, error.type, error.param)
    expected = (400, "moderation_blocked", "image_generation_user_error", None)
    check("a blocked request is a BadRequestError", told == expected, told)
    check("with its decisions", error.body["cluegate"][0]["reason"] == "violation", error.body)
    error = raised(openai.BadRequestError, prompt="p", extra_body={"seed": 3})
    check("a parameter that would be ignored", (error.code, error.param) == ("bad_request", "seed"), error)
    error = raised(openai.InternalServerError, prompt="fail")
    check("an upstream that fails", (error.status_code, error.code) == (502, "upstream_failed"), error)
    error = raised(openai.BadRequestError, prompt="p", background="transparent")
    check("a transparent background", error.param == "background", error)
    try:
        openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-wrong", max_retries=0).images.generate(prompt="p")
        sys.exit("FAILED: a wrong key was taken")
    except openai.AuthenticationError as error:
        check("a wrong key", error.code == "invalid_api_key", error)
    try:
        client.images.create_variation(image=b"\x89PNG")
        sys.exit("FAILED: a variation was drawn")
    except openai.BadRequestError as error:
        check("variations are refused", error.code == "not_expressible", error)


print(f"openai {openai.__version__}")
generations()
edits()
streams()
errors()
print(f"{checks} checks")
