//! Messages on a connection.
//!
//! *Failure*: after any error, and after a call that was given up half-way, the position in the stream is unknown. The connection must be
//! dropped, never used again.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::binary::{Limits, ThriftError};
use super::message::Message;
use super::scan::Scanner;

/// What stands between messages and the socket.
///
/// [`Plain`] is the only one there is. A SASL layer (Kerberos) negotiates on the fresh stream before the first message, in frames of a
/// status byte and a length; afterwards `seal` puts a length before each message, wrapped if integrity or confidentiality was agreed, and
/// `open` takes such frames apart as they become whole.
pub trait Layer: Send + Sync {
    /// The bytes to send for a message.
    fn seal(&mut self, message: Vec<u8>) -> io::Result<Vec<u8>>;
    /// Moves what `received` holds of messages to `plain`; an incomplete frame stays.
    fn open(&mut self, received: &mut BytesMut, plain: &mut BytesMut) -> io::Result<()>;
}

/// Messages as they are.
#[derive(Debug, Default)]
pub struct Plain;

impl Layer for Plain {
    fn seal(&mut self, message: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(message)
    }

    fn open(&mut self, received: &mut BytesMut, plain: &mut BytesMut) -> io::Result<()> {
        if plain.is_empty() {
            std::mem::swap(received, plain);
        } else {
            plain.extend_from_slice(received);
            received.clear();
        }
        Ok(())
    }
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Thrift(#[from] ThriftError),
}

/// Reads and writes whole messages on a TCP connection.
pub struct Channel {
    stream: TcpStream,
    layer: Box<dyn Layer>,
    limits: Limits,
    received: BytesMut,
    plain: BytesMut,
}

impl Channel {
    pub fn new(stream: TcpStream, layer: Box<dyn Layer>, limits: Limits) -> Self {
        Self { stream, layer, limits, received: BytesMut::new(), plain: BytesMut::new() }
    }

    /// Sends a message; `sent` counts the bytes that have left, also when this fails or is given up.
    pub async fn send(&mut self, message: &Message, sent: &mut usize) -> Result<(), ChannelError> {
        let bytes = self.layer.seal(message.encode())?;
        while *sent < bytes.len() {
            match self.stream.write(&bytes[*sent..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                written => *sent += written,
            }
        }
        Ok(())
    }

    /// The next message; none if the peer closed the connection between two messages.
    pub async fn receive(&mut self) -> Result<Option<Message>, ChannelError> {
        let mut scanner = Scanner::new(self.limits);
        loop {
            if !self.plain.is_empty()
                && let Some(end) = scanner.advance(&self.plain)?
            {
                let message = Message::decode(&self.plain[..end], &self.limits)?;
                self.plain.advance(end);
                return Ok(Some(message));
            }
            self.received.reserve(8 << 10);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                let between = self.received.is_empty() && self.plain.is_empty();
                return if between { Ok(None) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) };
            }
            self.layer.open(&mut self.received, &mut self.plain)?;
        }
    }

    /// Waits until the peer says something or goes away.
    pub async fn readable(&self) -> io::Result<()> {
        if self.plain.is_empty() && self.received.is_empty() { self.stream.readable().await } else { Ok(()) }
    }

    /// Whether nothing has arrived since the last message. An idle connection on which anything did, an end above all, is of no use.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let nothing_came = matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        nothing_came && self.plain.is_empty() && self.received.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::message::MessageKind;
    use super::super::value::Struct;
    use super::*;

    async fn pair() -> (Channel, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Channel::new(client, Box::new(Plain), Limits::default()), server)
    }

    fn message(sequence_id: i32) -> Message {
        Message { kind: MessageKind::Reply, name: "x".into(), sequence_id, body: Struct::new() }
    }

    #[tokio::test]
    async fn messages_are_told_apart_and_an_end_between_them_is_no_error() {
        let (mut channel, mut peer) = pair().await;
        peer.write_all(&[message(1).encode(), message(2).encode()].concat()).await.unwrap();
        drop(peer);
        assert_eq!(channel.receive().await.unwrap(), Some(message(1)));
        assert_eq!(channel.receive().await.unwrap(), Some(message(2)));
        assert_eq!(channel.receive().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_end_within_a_message_is_an_error_and_a_closed_connection_is_not_quiet() {
        let (mut channel, mut peer) = pair().await;
        assert!(channel.is_quiet());
        let bytes = message(1).encode();
        peer.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
        drop(peer);
        channel.readable().await.unwrap();
        assert!(!channel.is_quiet());
        assert!(matches!(channel.receive().await, Err(ChannelError::Io(_) | ChannelError::Thrift(_))));
    }
}
