"""What checks and tests of the hooks share: a real gateway over the embedded models, and the pages' own lines. Needs a cluegate:
CLUEGATE, or the one in the target folder."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

HOOKS = pathlib.Path(__file__).resolve().parent
ROOT = HOOKS.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
CLUEGATE = str(pathlib.Path(os.environ.get("CLUEGATE") or TARGET / "release/cluegate").resolve())
#: A tenant who gets whatever is drawn, and one who wants no cats, however faint.
POLICY = """
[tenant.open]
action.default = "allow"
[tenant.strict]
constitution = "no-cats.toml"
placeholder = "none"
"""
#: It waits for no session that a test leaves open.
CONFIG = 'listen = "127.0.0.1:0"\npolicy = "policy.toml"\n[keys]\nfile = "keys.toml"\n[limits]\ndrain_ms = 100\n'


class Gateway:
    """A gateway on a free port under a policy, with a key for each of its tenants. `no-cats.toml` lies beside the policy."""

    def __init__(self, policy=POLICY):
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = folder = pathlib.Path(self._temporary.name)
        (folder / "policy.toml").write_text(policy)
        shutil.copy(ROOT / "tests/support/no-cats.toml", folder)
        (folder / "gate.toml").write_text(CONFIG)
        self.keys = {tenant: self._key(tenant) for tenant in re.findall(r"^\[tenant\.(\w+)\]$", policy, re.M)}
        command = [CLUEGATE, "serve", "--config", str(folder / "gate.toml")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "listening on " in line:
                break
        else:
            raise RuntimeError(f"the gateway ended: {''.join(said)}")
        self.url = line.split()[-1]
        # What it says from here on fills no pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def _key(self, tenant):
        new = [CLUEGATE, "keys", "new", "--tenant", tenant, "--id", tenant, "--file", str(self.folder / "keys.toml")]
        return subprocess.run(new, check=True, text=True, capture_output=True).stdout.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def gate(self, tenant, **options):
        """The client's side of it."""
        from cluegate_client import HttpGate

        return HttpGate(self.url, self.keys[tenant], **{"timeout": 120.0, **options})

    def environ(self, tenant, **more):
        """The variables that the hooks' pages name, in an environment like this one."""
        return {**os.environ, "CLUEGATE_URL": self.url, "CLUEGATE_KEY": self.keys[tenant], **more}

    def kill(self):
        """Ends it in the middle of whatever it does, as a crash would."""
        self.process.kill()
        self.process.wait(60)

    def close(self):
        """Ends it as a service manager does."""
        killed = self.process.poll() is not None
        self.process.terminate()
        code = self.process.wait(90)
        self._temporary.cleanup()
        if code and not killed:
            raise RuntimeError(f"the gateway ended with {code}")


def draw(folder, prompt, seed):
    """The file of a picture that the embedded generator draws, and that nobody forbids."""
    policy = pathlib.Path(folder) / "open.toml"
    policy.write_text('[tenant.open]\naction.default = "allow"\n')
    out = pathlib.Path(folder) / f"drawn-{seed}"
    asked = ["--prompt", prompt, "--tenant", "open", "--seed", str(seed), "--policy", str(policy), "--out", str(out)]
    subprocess.run([CLUEGATE, "generate", *asked], check=True, capture_output=True)
    return next(iter(sorted(out.glob("*.png"))))


def block(page, language):
    """The first block of a hook's page in this language."""
    found = re.search(rf"```{language}\n(.*?)```", (HOOKS / page / "README.md").read_text(), re.S)
    if not found:
        raise SystemExit(f"{page}/README.md has no block of {language}")
    return found[1]


def shell_lines(page, gateway, tenant):
    """A page's lines of shell after `pip install`, literally but for the gateway's address and the key."""
    install, *lines = block(page, "sh").splitlines()
    assert install == "pip install ./hooks/client", "whoever runs this has followed the first line"
    return [line.replace("http://127.0.0.1:7800", gateway.url).replace("cg_...", gateway.keys[tenant]) for line in lines]
