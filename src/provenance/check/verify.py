"""Has the published reader verify what cluegate signed. Argument: a program built with `--features c2pa`."""

import base64
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request
from importlib import metadata

import c2pa
from PIL import Image

from authority import Authority

PROGRAM = sys.argv[1]
HERE = pathlib.Path(__file__).parent
ALGORITHMS = ["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
KINDS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
POLICY = 'provenance = "c2pa"\n'
SAFE, SMOKER = "a cat and a tree on the grass", "a woman smoking a cigarette on a beach"
checks = 0


def check(what, holds, *found):
    global checks
    if not holds:
        sys.exit(f"FAILED: {what}: {found}")
    checks += 1
    print(f"ok: {what}", flush=True)


def cluegate(*arguments, code=0):
    ended = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    check_code = f"`cluegate {arguments[0]}` ends with {code}"
    if ended.returncode != code:
        sys.exit(f"FAILED: {check_code}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout + ended.stderr


class Desk:
    """A folder with a chain, a policy and a configuration."""

    def __init__(self, folder, algorithm="es256", more="", tables=""):
        self.folder = pathlib.Path(folder)
        subprocess.run([HERE / "make-test-chain", self.folder, algorithm], check=True)
        self.root = (self.folder / "root.pem").read_text()
        (self.folder / "policy.toml").write_text(f"[tenant.default]\n{POLICY}{tables}")
        self.config = self.folder / "gate.toml"
        self.config.write_text(
            'listen = "127.0.0.1:0"\npolicy = "policy.toml"\n[keys]\nanonymous = "default"\n[upstream]\nkind = "builtin"\n'
            f'[provenance]\ncertificate = "signer.pem"\nkey = "signer.key"\nalgorithm = "{algorithm}"\n{more}'
        )

    def generate(self, prompt=SAFE, code=0, seed=8):
        """The file of one picture, or none, and what the command says of it."""
        out = self.folder / "out"
        told = cluegate("generate", "--policy", self.folder / "policy.toml", "--config", self.config, "--prompt", prompt,
                        "--seed", seed, "--out", out, "--format", "json", code=code)
        row = json.loads(told[: told.rindex("}") + 1])["pictures"][0]
        picture = out / "picture-000.png"
        return picture.read_bytes() if picture.exists() else None, row


def read(data, kind="png", root=None):
    """The state that the reader finds a file in, its manifest, and the codes of what is wrong."""
    settings = {"verify": {"remote_manifest_fetch": False}}
    if root:
        settings["trust"] = {"trust_anchors": root}
    with c2pa.Reader(KINDS[kind], io.BytesIO(data), context=c2pa.Context.from_dict(settings)) as reader:
        store = json.loads(reader.json())
    wrong = [one["code"] for one in store["validation_results"]["activeManifest"]["failure"]]
    return store["validation_state"], store["manifests"][store["active_manifest"]], wrong


def assertion(manifest, label):
    return next(one["data"] for one in manifest["assertions"] if one["label"] == label)


def algorithms(folder):
    for algorithm in ALGORITHMS:
        desk = Desk(folder / algorithm, algorithm)
        data, row = desk.generate()
        state, manifest, wrong = read(data)
        check(f"{algorithm}: valid, and untrusted by whoever does not know the authority",
              (state, wrong) == ("Valid", ["signingCredential.untrusted"]), state, wrong)
        state, manifest, wrong = read(data, root=desk.root)
        check(f"{algorithm}: trusted by whoever does", (state, wrong) == ("Trusted", []), state, wrong)
        decision = assertion(manifest, "org.cluegate.decision")
        check(f"{algorithm}: states the decision in the log", decision["decision"] == row["decision_id"], decision, row)


def statement(folder):
    desk = Desk(folder / "stated")
    data, row = desk.generate()
    _, manifest, _ = read(data, root=desk.root)
    record = json.loads((desk.folder / "out/decisions.jsonl").read_text().splitlines()[-1])
    decision = assertion(manifest, "org.cluegate.decision")
    expected = {"schema": 1, "gate": decision["gate"], "constitution": record["constitution"],
                "decision": record["decision_id"], "decided_at": record["timestamp"], "outcome": "released"}
    check("the decision is that of the log", decision == expected, decision, expected)
    check("the gate is named with its version", decision["gate"].startswith("cluegate "), decision)
    drawn = [{"action": "c2pa.created", "digitalSourceType": SOURCES + "trainedAlgorithmicMedia"}]
    check("a model drew it", assertion(manifest, "c2pa.actions.v2")["actions"] == drawn, manifest)
    check("the claim is the gate's", manifest["claim_generator_info"][0]["name"] == "cluegate", manifest)
    told = json.dumps(manifest)
    check("nobody is named, nor the prompt, and nothing is pictured",
          not any(word in told for word in ["cat", "tree", "default", "thumbnail"]), told)
    print(json.dumps({"validation_state": "Valid", "manifest": manifest}, indent=2))


def redaction(folder):
    desk = Desk(folder / "redacted", tables='[tenant.default.action]\ndefault = "redact"\n')
    data, row = desk.generate(SMOKER)
    check("a picture was redacted", row["reason"] == "redacted", row)
    state, manifest, wrong = read(data, root=desk.root)
    actions = [one["action"] for one in assertion(manifest, "c2pa.actions.v2")["actions"]]
    check("its file says that it was edited", (state, actions) == ("Trusted", ["c2pa.created", "c2pa.edited"]), actions)
    check("and that what was released is the redacted one",
          assertion(manifest, "org.cluegate.decision")["outcome"] == "released-redacted", manifest)
    check("the rule is not named", not any(rule in json.dumps(manifest) for rule in row["violated"] + ["smok"]), manifest)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


def changes(folder):
    desk = Desk(folder / "changed")
    data, row = desk.generate()
    # A bit of the compressed pixels, which lie behind the manifest.
    state, _, wrong = read(flipped(data, data.rindex(b"IDAT") + 64), root=desk.root)
    check("a changed pixel is found", (state, "assertion.dataHash.mismatch" in wrong) == ("Invalid", True), state, wrong)
    state, _, wrong = read(flipped(data, data.index(row["decision_id"].encode()) + 3), root=desk.root)
    check("a changed statement is found", (state, "assertion.hashedURI.mismatch" in wrong) == ("Invalid", True), state, wrong)
    chunks, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append(data[at + 4 : at + 8])
        at += 12 + length
    check("nothing else is in the file", set(chunks) == {b"IHDR", b"caBX", b"IDAT", b"IEND"}, chunks)
    check("it is a picture", Image.open(io.BytesIO(data)).convert("RGB").size[0] > 0)


def gateway(folder):
    """Files from the server, in every format, drawn and brought."""
    desk = Desk(folder / "served")
    server = subprocess.Popen([PROGRAM, "serve", "--config", desk.config], stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr:
            if line.startswith("listening on "):
                url = line.split()[-1]
                break
        else:
            sys.exit("FAILED: the gateway did not start")

        def post(path, body):
            asked = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=120) as answer:
                return json.load(answer)

        for kind in KINDS:
            body = post("/v1/images/generations", {"prompt": SAFE, "output_format": kind})
            data = base64.b64decode(body["data"][0]["b64_json"])
            state, manifest, wrong = read(data, kind, desk.root)
            check(f"{kind} from the gateway is trusted", (state, wrong) == ("Trusted", []), state, wrong)
            decision = assertion(manifest, "org.cluegate.decision")["decision"]
            check(f"{kind}: with its decision", decision == body["data"][0]["cluegate"]["decision_id"], decision)
            brought = {"image": base64.b64encode(data).decode(), "return_image": True, "format": kind}
            body = post("/v1/judge", brought)
            state, manifest, wrong = read(base64.b64decode(body["image"]), kind, desk.root)
            first = assertion(manifest, "c2pa.actions.v2")["actions"][0]
            check(f"{kind} that was brought: valid, and not said to be drawn here",
                  (state, wrong, first["action"], first.get("digitalSourceType")) == ("Trusted", [], "c2pa.opened", None),
                  state, wrong, first)
    finally:
        server.terminate()
        server.wait(timeout=60)


def timestamps(folder):
    desk = Desk(folder / "stamped")
    authority = Authority(desk.folder)
    desk.config.write_text(desk.config.read_text() + f'timestamp_url = "{authority.url}"\n')
    data, _ = desk.generate()
    state, manifest, wrong = read(data, root=desk.root)
    stamped = manifest["signature_info"].get("time")
    check("with an authority the signature has a time", state == "Trusted" and stamped, state, wrong, manifest["signature_info"])
    check("it was asked once", authority.asked == 1, authority.asked)
    authority.stop()
    data, row = desk.generate(code=2)
    check("without its timestamp nothing is released", data is None and row["reason"] == "signing-failure", row)
    check("and it is called no violation", "this is no violation" in row["message"] and row["violated"] == [], row)


def credentials(folder):
    desk = Desk(folder / "checked")
    check("`config check` finds nothing wrong", "ok" in cluegate("config", "check", desk.config))
    told = cluegate("doctor", "--config", desk.config)
    check("`doctor` says who signs", "files are signed by O=Test, CN=Test gate, valid until" in told, told)
    key = (desk.folder / "signer.key").read_text().splitlines()[1]
    shown = cluegate("config", "show", "--config", desk.config, "--sources")
    check("`config show` names the key's file and not the key", "signer.key" in shown and key not in shown, shown)
    other = Desk(folder / "another")
    (desk.folder / "signer.key").write_bytes((other.folder / "signer.key").read_bytes())
    told = cluegate("config", "check", desk.config, code=1) + cluegate("serve", "--config", desk.config, "--check", code=2)
    told += cluegate("doctor", "--config", desk.config, code=2)
    check("a key of another certificate is refused everywhere", told.count("belongs to another") == 3, told)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for part in [credentials, algorithms, statement, redaction, changes, gateway, timestamps]:
            part(folder)
    print(f"{checks} checks passed by c2pa-python {metadata.version('c2pa-python')} (c2pa-rs {c2pa.sdk_version()})")


main()
