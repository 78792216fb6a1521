//! The part of the D-Bus wire format (D-Bus Specification 0.43, "Marshaling" and "Message Format") that calls to systemd
//! and systemd-machined and their answers need, in little endian.
//!
//! A D-Bus library would do, but the smallest one that is kept up runs threads and makes every start of nixrun about
//! 30 µs longer by its size alone, for a handful of messages.

/// Longest message that is read; those of a bus to us are a few hundred bytes.
pub(crate) const MESSAGE_MAX: usize = 1 << 20;

/// Length of what precedes the header fields.
pub(crate) const FIXED: usize = 16;

/// Values in their wire form. Alignment counts from the beginning, so a body and a header are each a `Writer`.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn align(&mut self, to: usize) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }

    pub(crate) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.align(4).0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.align(8).0.extend(value.to_le_bytes());
        self
    }

    /// An array of bytes.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(length(value.len())).0.extend(value);
        self
    }

    pub(crate) fn string(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes()).byte(0)
    }

    pub(crate) fn signature(&mut self, value: &str) -> &mut Self {
        // Signatures are constants of this program, far below their limit of 255 bytes.
        self.byte(u8::try_from(value.len()).unwrap_or(u8::MAX)).0.extend(value.as_bytes());
        self.byte(0)
    }

    /// An array whose elements begin at multiples of `align`; the padding before the first does not count.
    pub(crate) fn array(&mut self, align: usize, elements: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(align);
        let begin = self.0.len();
        elements(self);
        let written = length(self.0.len() - begin).to_le_bytes();
        self.0[at..at + 4].copy_from_slice(&written);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Kinds of messages.
pub(crate) mod kind {
    pub(crate) const CALL: u8 = 1;
    pub(crate) const RETURN: u8 = 2;
    pub(crate) const ERROR: u8 = 3;
    pub(crate) const SIGNAL: u8 = 4;
}

/// Flags of messages.
pub(crate) mod flag {
    pub(crate) const NO_AUTO_START: u8 = 2;
}

/// Codes of header fields.
pub(crate) mod field {
    pub(crate) const PATH: u8 = 1;
    pub(crate) const INTERFACE: u8 = 2;
    pub(crate) const MEMBER: u8 = 3;
    pub(crate) const ERROR_NAME: u8 = 4;
    pub(crate) const REPLY_SERIAL: u8 = 5;
    pub(crate) const DESTINATION: u8 = 6;
    pub(crate) const SENDER: u8 = 7;
    pub(crate) const SIGNATURE: u8 = 8;
}

/// A message in its wire form. `fields` are the text-valued header fields.
pub(crate) fn message(
    kind: u8,
    flags: u8,
    serial: u32,
    fields: &[(u8, &str)],
    reply_to: Option<u32>,
    body: Writer,
) -> Vec<u8> {
    let body = body.into_bytes();
    let mut header = Writer::default();
    header.byte(b'l').byte(kind).byte(flags).byte(1).u32(length(body.len())).u32(serial);
    header.array(8, |array| {
        for (code, value) in fields {
            array.align(8).byte(*code);
            match *code {
                field::PATH => array.signature("o").string(value),
                field::SIGNATURE => array.signature("g").signature(value),
                _ => array.signature("s").string(value),
            };
        }
        if let Some(serial) = reply_to {
            array.align(8).byte(field::REPLY_SERIAL).signature("u").u32(serial);
        }
    });
    let mut bytes = header.align(8).0.split_off(0);
    bytes.extend(body);
    bytes
}

/// Length of a whole message, from its first [`FIXED`] bytes; `None` when they begin no message of ours.
pub(crate) fn message_length(fixed: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(fixed);
    let endianness = reader.byte()?;
    reader.at = 4;
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let length = FIXED.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (endianness == b'l' && length <= MESSAGE_MAX).then_some(length)
}

/// A message that came in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) serial: u32,
    pub(crate) reply_to: Option<u32>,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) signature: String,
    pub(crate) sender: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads a whole message; `None` when it is malformed.
    pub(crate) fn read(bytes: &[u8]) -> Option<Message> {
        let mut reader = Reader::new(bytes);
        reader.at = 1;
        let mut message = Message { kind: reader.byte()?, ..Message::default() };
        reader.at = 8;
        message.serial = reader.u32()?;
        let fields_end = FIXED.checked_add(reader.u32()? as usize)?;
        while reader.at < fields_end {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?) {
                (field::REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
                (field::SIGNATURE, "g") => reader.signature()?.clone_into(&mut message.signature),
                (field::INTERFACE, "s") => reader.string()?.clone_into(&mut message.interface),
                (field::MEMBER, "s") => reader.string()?.clone_into(&mut message.member),
                (field::ERROR_NAME, "s") => reader.string()?.clone_into(&mut message.error),
                (field::SENDER, "s") => reader.string()?.clone_into(&mut message.sender),
                (_, "s" | "o") => drop(reader.string()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
        message.body = bytes.get(fields_end.checked_next_multiple_of(8)?..)?.to_vec();
        Some(message)
    }
}

/// Reads values in their wire form; `None` past the end and where the form is wrong.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    pub(crate) fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }
}
