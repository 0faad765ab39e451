//! Memory that the gate and a plugin's process share: a flag that calls the work off, room for pictures to the plugin, and
//! room for one from it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use cluegate_abi::PictureView;
use memmap2::{MmapOptions, MmapRaw};

use super::wire::Size;

/// Bytes before the first picture; the flag is in them.
const HEAD: usize = 4096;

/// One mapping of the shared memory.
#[derive(Debug)]
pub(crate) struct Shared {
    map: MmapRaw,
    /// Bytes of room on each side.
    room: usize,
}

impl Shared {
    /// New memory with this much room for each of the two pictures. Pages that nobody writes take no memory.
    #[cfg(target_os = "linux")]
    pub(crate) fn create(room: usize) -> io::Result<(Self, File)> {
        use std::os::fd::{AsRawFd as _, FromRawFd as _};
        // SAFETY: the name is terminated, and a new descriptor belongs to nobody else.
        let file = unsafe {
            match libc::memfd_create(c"cluegate-plugin".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
            {
                -1 => return Err(io::Error::last_os_error()),
                descriptor => File::from_raw_fd(descriptor),
            }
        };
        file.set_len((HEAD + 2 * room) as u64)?;
        // A process that made it shorter would end whoever reads beyond.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: a call with plain numbers.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok((Self::map(&file)?, file))
    }

    /// There is no memory of this kind here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn create(_: usize) -> io::Result<(Self, File)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "plugins in a process of their own need Linux"))
    }

    /// The memory behind a descriptor.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let room = len.saturating_sub(HEAD) / 2;
        if room == 0 || HEAD + 2 * room != len {
            let problem = format!("shared memory of {len} bytes, expected more than {HEAD}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Self { map: MmapOptions::new().len(len).map_raw(file)?, room })
    }

    /// The flag that calls the work off.
    pub(crate) fn cancelled(&self) -> &AtomicU32 {
        // SAFETY: the mapping is longer than this, begins at a page, and both sides only use it as an atomic.
        unsafe { &*self.map.as_mut_ptr().cast::<AtomicU32>() }
    }

    /// Calls the work off, or lets new work begin.
    pub(crate) fn set_cancelled(&self, cancelled: bool) {
        self.cancelled().store(u32::from(cancelled), Ordering::Release);
    }

    /// Puts pictures where the plugin reads them, or where the gate does, one behind the other.
    pub(crate) fn put(&self, side: Side, pictures: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = pictures.iter().map(|pixels| pixels.len()).sum();
        if bytes > self.room {
            let problem = format!(
                "pictures of {bytes} bytes do not fit into the {} that are shared with a plugin's process",
                self.room
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let mut offset = self.offset(side);
        for pixels in pictures {
            // SAFETY: within the mapping, and the other side reads only after it was told to.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    pixels.as_ptr(),
                    self.map.as_mut_ptr().add(offset),
                    pixels.len(),
                );
            }
            offset += pixels.len();
        }
        Ok(())
    }

    /// A copy of a picture.
    pub(crate) fn take(&self, side: Side, size: Size) -> io::Result<Vec<u8>> {
        let len = size.bytes(self.room)?;
        let mut pixels = Vec::with_capacity(len);
        // SAFETY: within the mapping; bytes that the other side might still write are copied as whatever they are.
        unsafe {
            let place = self.map.as_mut_ptr().add(self.offset(side));
            std::ptr::copy_nonoverlapping(place, pixels.as_mut_ptr(), len);
            pixels.set_len(len);
        }
        Ok(pixels)
    }

    /// The pictures to the plugin where they lie. For the plugin's process alone.
    pub(crate) fn views(&self, sizes: &[Size]) -> io::Result<Vec<PictureView<'_>>> {
        let (mut views, mut left) = (Vec::new(), self.room);
        for size in sizes {
            let len = size.bytes(left)?;
            let offset = self.offset(Side::ToWorker) + (self.room - left);
            // SAFETY: within the mapping; the gate writes there again only after it has the answer.
            let pixels = unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset), len) };
            let view = PictureView::new(pixels, size.width, size.height)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.message().to_owned()))?;
            views.push(view);
            left -= len;
        }
        Ok(views)
    }

    fn offset(&self, side: Side) -> usize {
        match side {
            Side::ToWorker => HEAD,
            Side::FromWorker => HEAD + self.room,
        }
    }
}

/// Whose picture.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    /// The gate's, for the plugin.
    ToWorker,
    /// The plugin's, for the gate.
    FromWorker,
}
