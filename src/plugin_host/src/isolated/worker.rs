//! The plugin's process: it opens one plugin and answers one question after the other.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use cluegate_abi::{ErrorCode, PictureBuf, PluginError};

use super::shared::{Shared, Side};
use super::wire::{self, Frames, FromWorker, Size, ToWorker};
use crate::instance::{Instance, Observer, Terms};
use crate::local::Origin;
use crate::message::Ask;
use crate::search::sha256_of;

/// The two descriptors that the gate left in place of standard input and output, which the plugin gets back as usual ones.
fn descriptors() -> io::Result<(UnixStream, File)> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let memory = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let nothing = File::open("/dev/null")?;
    for (from, to) in [(nothing.as_raw_fd(), libc::STDIN_FILENO), (libc::STDERR_FILENO, libc::STDOUT_FILENO)]
    {
        // SAFETY: a call with numbers of open descriptors.
        if unsafe { libc::dup2(from, to) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok((stream, memory))
}

/// Serves one plugin until the gate has gone. For the hidden command that a gate starts; nothing else may have used
/// standard input or output before.
///
/// # Errors
/// If the descriptors are not what a gate leaves.
pub fn run() -> io::Result<()> {
    let (stream, memory) = descriptors()?;
    let shared = Shared::map(&memory)?;
    let mut to_gate = stream.try_clone()?;
    let questions = listen(stream)?;
    let Ok(ToWorker::Open { plugin, path, sha256, config, folder }) = questions.recv() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "expected the name of a plugin first"));
    };
    let origin = Origin { path, config, folder };
    let opened = match sha256_of(&origin.path) {
        Ok(found) if found == sha256 => origin.open(&plugin).map_err(|error| error.to_string()),
        Ok(_) => Err(format!("{} changed while it was opened", origin.path.display())),
        Err(error) => Err(error.to_string()),
    };
    let instance = match opened {
        Err(problem) => return wire::write(&mut to_gate, &FromWorker::NotOpened { problem }),
        Ok((instance, fingerprint)) => {
            let description = instance.dylib().description.clone();
            wire::write(&mut to_gate, &FromWorker::Opened { description, fingerprint })?;
            instance
        }
    };
    let mut serving = Serving { instance, shared, to_gate, questions, lost: None };
    loop {
        match serving.questions.recv() {
            Ok(ToWorker::Ask { ask, pictures, deadline_ms }) => {
                serving.answer(&ask, &pictures, deadline_ms)?
            }
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a question")),
            Err(_) => return Ok(()),
        }
    }
}

/// Hears the gate on a thread of its own, so that a plugin that hangs does not outlive it.
fn listen(mut stream: UnixStream) -> io::Result<Receiver<ToWorker>> {
    let (sender, receiver) = sync_channel(4);
    let hear = move || {
        let mut frames = Frames::default();
        while let Ok(message) = frames.read(&mut stream) {
            if sender.send(message).is_err() {
                break;
            }
        }
        // The gate has gone, or makes no sense. Nothing here is worth keeping, and the plugin may never come back.
        // SAFETY: ends the process without running anybody's code.
        unsafe { libc::_exit(0) };
    };
    std::thread::Builder::new().name("cluegate-plugin-gate".to_owned()).spawn(hear)?;
    Ok(receiver)
}

struct Serving {
    instance: Instance,
    shared: Shared,
    to_gate: UnixStream,
    questions: Receiver<ToWorker>,
    /// Why the gate cannot be told any more.
    lost: Option<io::Error>,
}

impl Serving {
    fn answer(&mut self, ask: &Ask, pictures: &[Size], deadline_ms: u64) -> io::Result<()> {
        let Self { instance, shared, to_gate, questions, lost } = self;
        let views = shared.views(pictures)?;
        let terms = Terms { cancelled: shared.cancelled(), deadline: Duration::from_millis(deadline_ms) };
        let mut telling = Telling { shared, to_gate, questions, lost };
        let given = instance.ask(ask, &views, &terms, &mut telling);
        if let Some(error) = lost.take() {
            return Err(error);
        }
        let put = |picture: PictureBuf| share(shared, &picture);
        let answer = match given.and_then(|(said, picture)| Ok((said, picture.map(put).transpose()?))) {
            Ok((said, picture)) => FromWorker::Given { said, picture },
            Err(error) => {
                FromWorker::Failed { code: error.code().number(), message: error.message().to_owned() }
            }
        };
        wire::write(to_gate, &answer)
    }
}

/// Puts a picture where the gate reads it.
fn share(shared: &Shared, picture: &PictureBuf) -> Result<Size, PluginError> {
    let refused = |error: io::Error| PluginError::new(ErrorCode::Contract, error.to_string());
    shared.put(Side::FromWorker, &[picture.pixels()]).map_err(refused)?;
    Ok(Size { width: picture.width(), height: picture.height() })
}

/// Tells the gate of a drawing's steps.
struct Telling<'a> {
    shared: &'a Shared,
    to_gate: &'a mut UnixStream,
    questions: &'a Receiver<ToWorker>,
    lost: &'a mut Option<io::Error>,
}

impl Telling<'_> {
    fn ask(&mut self, message: &FromWorker) -> bool {
        if let Err(error) = wire::write(self.to_gate, message) {
            self.lost.get_or_insert(error);
            return false;
        }
        matches!(self.questions.recv(), Ok(ToWorker::Go(true)))
    }
}

impl Observer for Telling<'_> {
    fn wants(&mut self, step: u32, total: u32) -> bool {
        self.ask(&FromWorker::Wants { step, total })
    }

    fn step(&mut self, step: u32, total: u32, preview: Option<PictureBuf>) -> bool {
        let preview = match preview.map(|picture| share(self.shared, &picture)).transpose() {
            Ok(preview) => preview,
            // A preview that does not fit is not worth the picture.
            Err(error) => {
                tracing::warn!(%error, "a preview is not shown");
                None
            }
        };
        self.ask(&FromWorker::Step { step, total, preview })
    }
}
