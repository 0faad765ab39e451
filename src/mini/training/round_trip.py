"""What the embedded generator's autoencoder makes of a picture: the judging models train on that too."""

import threading
import time


class Vae:
    """The generator's VAE as a callable, loaded in the background once its folder is complete."""

    def __init__(self, folder, device):
        self.call, self.asked = None, time.time()
        if folder is not None:
            threading.Thread(target=self._wait, args=(folder, device), daemon=True).start()

    def _wait(self, folder, device):
        while not (folder / "ready").exists() and not (folder / "config.json").exists():
            time.sleep(2)
        for _ in range(30):  # the weights may still be on their way to the disk
            try:
                import generator

                self.call = generator.load_vae(folder, device)
                print(f"VAE of {folder} in use after {time.time() - self.asked:.0f} s", flush=True)
                return
            except Exception as error:  # noqa: BLE001 any failure means: try again, train without it meanwhile
                last = error
                time.sleep(3)
        print(f"no VAE: {last}", flush=True)
