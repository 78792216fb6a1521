//! zstd, in frames of a fixed amount of data each: every one has a checksum, so that what is broken is found where it
//! is, and one can be compressed beside the next. Any zstd reads them as one stream.

use std::io::{self, BufRead, BufReader, Read, Write};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Data in one frame, in bytes. The compressor looks back 128 KiB only: larger ones gain nothing.
const FRAME: usize = 1 << 20;

/// Compresses what is written to it. Nothing is complete before [`Encoder::finish`].
#[derive(Debug)]
pub struct Encoder<W: Write> {
    to: W,
    frames: Vec<Vec<u8>>,
    threads: usize,
}

impl<W: Write> Encoder<W> {
    /// Onto `to`.
    pub fn new(to: W) -> Encoder<W> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        Encoder { to, frames: Vec::new(), threads }
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// Those of what it is written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.compress()?;
        Ok(self.to)
    }

    fn compress(&mut self) -> io::Result<()> {
        let frames = std::mem::take(&mut self.frames);
        let one = |frame: &[u8]| compress_to_vec(frame, CompressionLevel::Fastest);
        let compressed: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let begun: Vec<_> = frames.iter().skip(1).map(|frame| scope.spawn(move || one(frame))).collect();
            let first = frames.first().map(|frame| one(frame));
            let others = begun.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            first.into_iter().chain(others).collect()
        });
        compressed.iter().try_for_each(|frame| self.to.write_all(frame))
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.frames.last().is_none_or(|frame| frame.len() == FRAME) {
            if self.frames.len() == self.threads {
                self.compress()?;
            }
            self.frames.push(Vec::with_capacity(FRAME));
        }
        let Some(frame) = self.frames.last_mut() else { return Ok(0) };
        let taken = data.len().min(FRAME - frame.len());
        frame.extend_from_slice(data.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Decompresses frame after frame, and compares their checksums.
pub struct Decoder<R: Read> {
    from: BufReader<R>,
    frame: FrameDecoder,
    in_frame: bool,
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("in_frame", &self.in_frame).finish_non_exhaustive()
    }
}

impl<R: Read> Decoder<R> {
    /// Of what is read from `from`.
    pub fn new(from: R) -> Decoder<R> {
        Decoder { from: BufReader::with_capacity(1 << 17, from), frame: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame; false at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.from.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.frame.reset(&mut self.from) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.from).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.in_frame = false;
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(said), Some(found)) if said != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of the data is wrong"))
            }
            _ => Ok(()),
        }
    }
}

fn broken(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the compressed data is broken or cut off: {error}"))
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(broken)?;
            }
            let read = self.frame.read(into)?;
            if read > 0 {
                return Ok(read);
            }
            self.end()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(data: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn data() -> Vec<u8> {
        (0..FRAME * 3 + 1000).map(|n| ((n * n) >> 7) as u8 & 0x3f).collect()
    }

    fn decompressed(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Decoder::new(data).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for data in [Vec::new(), b"x".to_vec(), data(), vec![0; FRAME]] {
            assert!(decompressed(&compressed(&data)).unwrap() == data);
        }
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &compressed(b"x")].concat();
        assert_eq!(decompressed(&skippable).unwrap(), b"x");
    }

    #[test]
    fn what_was_changed_or_cut_off_is_found() {
        let whole = compressed(&data());
        for at in [0, 10, 1000, whole.len() / 2, whole.len() - 2] {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(decompressed(&changed).is_err(), "a change at {at} was not found");
            if at > 0 {
                decompressed(&whole[..at]).unwrap_err();
            }
        }
    }
}
