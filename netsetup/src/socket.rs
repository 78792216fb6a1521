//! One netlink socket for every family, and the batches it carries.
//!
//! The kernel works through a batch while `send` runs, and has queued its answers when `send` returns. So many
//! requests cost two system calls: only the last one asks for an acknowledgement, since the kernel reports those
//! that fail unasked, each by its sequence number.

use std::borrow::Cow;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::error::{Error, KernelError, Result};

/// `NLMSG_ERROR`, also the type of an acknowledgement.
const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`, the end of a dump.
const NLMSG_DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG` of `linux/netlink.h`: the kernel's words.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// The kernel fills dump answers up to 32 KiB (`netlink_dump`, linux/net/netlink/af_netlink.c).
const RECEIVE_BUFFER: usize = 32 * 1024;

/// A netlink family: which protocol number its sockets have.
pub(crate) trait Family {
    /// `NETLINK_*`.
    const PROTOCOL: isize;
    /// Name in error messages.
    const NAME: &'static str;
}

/// rtnetlink: links, addresses, routes.
#[derive(Debug)]
pub(crate) enum Route {}

impl Family for Route {
    const PROTOCOL: isize = netlink_sys::protocols::NETLINK_ROUTE;
    const NAME: &'static str = "rtnetlink";
}

/// nfnetlink: nftables.
pub(crate) enum Netfilter {}

impl Family for Netfilter {
    const PROTOCOL: isize = netlink_sys::protocols::NETLINK_NETFILTER;
    const NAME: &'static str = "nfnetlink";
}

/// sock_diag: who listens.
pub(crate) enum SockDiag {}

impl Family for SockDiag {
    const PROTOCOL: isize = netlink_sys::protocols::NETLINK_SOCK_DIAG;
    const NAME: &'static str = "sock_diag";
}

/// A message body: something that `netlink-packet-route` or this crate can encode.
pub(crate) trait Body {
    /// Appends the body to `bytes`.
    fn append(&self, bytes: &mut Vec<u8>);
}

impl<T: Emitable> Body for T {
    fn append(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.resize(start + self.buffer_len(), 0);
        self.emit(&mut bytes[start..]);
    }
}

/// Requests that go to the kernel in one `send`, each with the words for what it does.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// What each request does, as in "cannot ...". Its index is the request's sequence number.
    doing: Vec<Cow<'static, str>>,
    /// Offset and sequence number of the last request that can be acknowledged.
    last: Option<(usize, u32)>,
}

impl Batch {
    /// An empty batch.
    pub(crate) fn new() -> Batch {
        Batch::default()
    }

    /// Adds a request. `flags` are `NLM_F_*` beyond `NLM_F_REQUEST`.
    pub(crate) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Body,
        doing: impl Into<Cow<'static, str>>,
    ) -> &mut Self {
        self.last = Some((self.bytes.len(), self.doing.len() as u32));
        self.push_unacknowledged(kind, flags, body, doing)
    }

    /// Adds a request that the kernel never acknowledges, such as the end of an nftables batch.
    pub(crate) fn push_unacknowledged(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Body,
        doing: impl Into<Cow<'static, str>>,
    ) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_LEN, 0);
        body.append(&mut self.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = (self.bytes.len() - start) as u32;
        let header = &mut self.bytes[start..start + HEADER_LEN];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        header[8..12].copy_from_slice(&(self.doing.len() as u32).to_ne_bytes());
        self.doing.push(doing.into());
        self
    }

    /// The encoded requests, as they go to the kernel.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Asks for an acknowledgement of the last request.
    fn acknowledge_last(&mut self) -> Option<u32> {
        let (offset, sequence) = self.last?;
        let flags = u16::from_ne_bytes([self.bytes[offset + 6], self.bytes[offset + 7]]) | NLM_F_ACK;
        self.bytes[offset + 6..offset + 8].copy_from_slice(&flags.to_ne_bytes());
        Some(sequence)
    }

    fn doing(&self, sequence: u32) -> String {
        self.doing
            .get(sequence as usize)
            .map_or_else(|| "talk to the kernel".into(), |doing| doing.to_string())
    }
}

/// A netlink socket of one family. It stays in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket<F> {
    inner: netlink_sys::Socket,
    buffer: Vec<u8>,
    family: PhantomData<fn() -> F>,
}

impl<F: Family> Socket<F> {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Socket<F>> {
        let open = || {
            let inner = netlink_sys::Socket::new(F::PROTOCOL)?;
            // The kernel's words in errors, and errors without a copy of the request.
            inner.set_ext_ack(true)?;
            inner.set_cap_ack(true)?;
            Ok(inner)
        };
        let inner = open().map_err(Error::io(format!("open a socket of netlink family {}", F::NAME)))?;
        Ok(Socket { inner, buffer: Vec::with_capacity(RECEIVE_BUFFER), family: PhantomData })
    }

    /// Sends a batch and waits for its acknowledgement. `answer` gets every message the kernel sends besides
    /// (`NLM_F_ECHO`). The first request that failed is the error; the kernel tries those behind it all the same.
    pub(crate) fn transact(&mut self, mut batch: Batch, mut answer: impl FnMut(&[u8])) -> Result<()> {
        let Some(last) = batch.acknowledge_last() else { return Ok(()) };
        self.send(&batch)?;
        let mut failure: Option<(u32, KernelError)> = None;
        let mut acknowledged = false;
        while !acknowledged && self.receive(libc::MSG_DONTWAIT)? {
            each_message(&self.buffer, |message| match message {
                Message::Error(sequence, error) => {
                    failure.get_or_insert((sequence, error));
                    acknowledged |= sequence == last;
                }
                Message::Acknowledged(sequence) => acknowledged |= sequence == last,
                Message::Data(payload) => answer(payload),
                Message::Done => {}
            })?;
        }
        match failure {
            Some((sequence, failure)) => Err(Error::Netlink { doing: batch.doing(sequence), failure }),
            None if acknowledged => Ok(()),
            None => Err(no_answer(batch.doing(last))),
        }
    }

    /// Asks one question that has one answer.
    pub(crate) fn request<T>(
        &mut self,
        kind: u16,
        body: &impl Body,
        doing: String,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let mut batch = Batch::new();
        batch.push(kind, 0, body, doing);
        self.send(&batch)?;
        let mut outcome = None;
        let mut parse = Some(parse);
        if self.receive(libc::MSG_DONTWAIT)? {
            each_message(&self.buffer, |message| match message {
                Message::Error(_, failure) => {
                    outcome = Some(Err(Error::Netlink { doing: batch.doing(0), failure }));
                }
                Message::Data(payload) => outcome = parse.take().and_then(|parse| parse(payload)).map(Ok),
                Message::Acknowledged(_) | Message::Done => {}
            })?;
        }
        outcome.unwrap_or_else(|| Err(no_answer(batch.doing(0))))
    }

    /// Asks for a dump; `answer` gets each of its messages.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &impl Body,
        doing: String,
        mut answer: impl FnMut(&[u8]),
    ) -> Result<()> {
        let mut batch = Batch::new();
        batch.push(kind, NLM_F_DUMP, body, doing);
        self.send(&batch)?;
        let mut failure = None;
        let mut done = false;
        while !done && self.receive(0)? {
            each_message(&self.buffer, |message| match message {
                Message::Error(_, error) => {
                    failure = Some(error);
                    done = true;
                }
                Message::Data(payload) => answer(payload),
                Message::Done | Message::Acknowledged(_) => done = true,
            })?;
        }
        match failure {
            Some(failure) => Err(Error::Netlink { doing: batch.doing(0), failure }),
            None => Ok(()),
        }
    }

    /// Has the kernel send the messages of multicast groups to this socket, which must be for nothing else.
    pub(crate) fn subscribe(&mut self, groups: &[u32]) -> Result<()> {
        // Without an address of its own a socket counts as the kernel's, which does not hear itself.
        let bound = self.inner.bind_auto().map(drop);
        let joined =
            bound.and_then(|()| groups.iter().try_for_each(|group| self.inner.add_membership(*group)));
        joined.map_err(Error::io(format!("listen to {}", F::NAME)))
    }

    /// Drops every message that is queued; whether there was one, or there were so many that some are lost.
    pub(crate) fn drain(&mut self) -> bool {
        let mut any = false;
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(false) => return any,
                Ok(true) => any = true,
                // ENOBUFS, which is told once.
                Err(error) if error.errno() == Some(Errno::ENOBUFS) => any = true,
                Err(_) => return true,
            }
        }
    }

    fn send(&self, batch: &Batch) -> Result<()> {
        let sent = loop {
            match self.inner.send_to(&batch.bytes, &SocketAddr::new(0, 0), 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => break sent,
            }
        };
        sent.map(drop).map_err(Error::io(batch.doing(0)))
    }

    /// Reads one datagram into the buffer; `false` when none is queued.
    fn receive(&mut self, flags: libc::c_int) -> Result<bool> {
        loop {
            self.buffer.clear();
            match self.inner.recv(&mut self.buffer, flags) {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(format!("read the answer of {}", F::NAME))(error)),
            }
        }
    }
}

impl<F> AsFd for Socket<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Socket<Netfilter> {
    /// Closes the socket without waiting for the kernel to free what was deleted through any socket of the
    /// namespace: closing an nfnetlink socket waits for that, an RCU grace period of about 10 ms (nft_rcv_nl_event
    /// flushes the destroy work, Linux 6.18), and so does the end of a process that has one open.
    ///
    /// The socket goes into the queue of a Unix socket that is in its own queue as well. Nobody can reach either,
    /// and the kernel's collector of such cycles closes them, in a thread of its own.
    pub(crate) fn close_later(self) {
        let queue = || -> nix::Result<_> {
            let (a, b) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
            let fds = [self.inner.as_raw_fd(), b.as_raw_fd()];
            let content = [io::IoSlice::new(b"-")];
            sendmsg::<()>(
                a.as_raw_fd(),
                &content,
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::empty(),
                None,
            )?;
            Ok((a, b))
        };
        // What fails here only costs the wait.
        let cycle = queue();
        // Ours goes first: the collector begins when the cycle's ends close, and must hold the last reference.
        drop(self);
        drop(cycle);
    }
}

fn no_answer(doing: String) -> Error {
    Error::Netlink { doing, failure: KernelError { errno: Errno::EPROTO, text: Some("no answer".into()) } }
}

/// One message from the kernel, with the sequence number of the request it belongs to.
enum Message<'a> {
    Error(u32, KernelError),
    Acknowledged(u32),
    Data(&'a [u8]),
    Done,
}

fn each_message(mut datagram: &[u8], mut take: impl FnMut(Message<'_>)) -> Result<()> {
    let malformed = |_| Error::Netlink {
        doing: "read the kernel's answer".into(),
        failure: KernelError { errno: Errno::EPROTO, text: None },
    };
    while datagram.len() >= HEADER_LEN {
        let message = NetlinkBuffer::new_checked(datagram).map_err(malformed)?;
        let (sequence, payload) = (message.sequence_number(), message.payload());
        take(match message.message_type() {
            NLMSG_DONE => Message::Done,
            NLMSG_ERROR => match error_of(payload, message.flags()) {
                Some(error) => Message::Error(sequence, error),
                None => Message::Acknowledged(sequence),
            },
            _ => Message::Data(payload),
        });
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// Decodes `struct nlmsgerr` and the extended acknowledgement behind it; `None` for success.
fn error_of(payload: &[u8], flags: u16) -> Option<KernelError> {
    let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return None;
    }
    // The failed request's header follows; the whole request too, unless capped.
    let request = if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        payload
            .get(4..)
            .and_then(|rest| rest.first_chunk())
            .map_or(HEADER_LEN, |l| u32::from_ne_bytes(*l) as usize)
    };
    let attributes = payload.get(4 + request.next_multiple_of(4)..).filter(|_| flags & NLM_F_ACK_TLVS != 0);
    let text = NlasIterator::new(attributes.unwrap_or_default())
        .flatten()
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned());
    Some(KernelError { errno: Errno::from_raw(-code), text })
}
