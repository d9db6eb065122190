//! What a connection is made of: a socket, or, in the simulation of the tests, whatever carries messages inside of the process.
//!
//! The seam is below everything that decides: what may be repeated, when a call has timed out and what that means is the same code over
//! either of them.

use std::io;

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::super::thrift::{Channel, ChannelError, Limits, Message, Plain};

/// Makes connections without a network.
#[async_trait]
pub trait Dial: Send + Sync {
    async fn dial(&self, server: &str) -> io::Result<Box<dyn Wire>>;
}

/// One such connection. Messages are whole; there is one call at a time.
#[async_trait]
pub trait Wire: Send + Sync {
    /// Takes a message on its way; after an error nothing of it was sent.
    async fn send(&mut self, message: Vec<u8>) -> io::Result<()>;
    /// The answer to the message that was sent last.
    async fn receive(&mut self) -> io::Result<Vec<u8>>;
    /// Whether the connection may carry another call.
    fn is_quiet(&self) -> bool;
}

pub(super) enum Line {
    Socket(Box<Channel>),
    Wire(Box<dyn Wire>),
}

impl Line {
    pub async fn open(server: &str, dial: Option<&dyn Dial>) -> io::Result<Self> {
        if let Some(dial) = dial {
            return Ok(Self::Wire(dial.dial(server).await?));
        }
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Socket(Box::new(Channel::new(stream, Box::new(Plain), Limits::default()))))
    }

    /// Sends a message; `sent` counts the bytes that have left, also when this fails or is given up.
    pub async fn send(&mut self, message: &Message, sent: &mut usize) -> Result<(), ChannelError> {
        match self {
            Self::Socket(channel) => channel.send(message, sent).await,
            Self::Wire(wire) => {
                let bytes = message.encode();
                let length = bytes.len();
                wire.send(bytes).await?;
                *sent = length;
                Ok(())
            }
        }
    }

    /// The next message; none if the peer closed the connection between two messages.
    pub async fn receive(&mut self) -> Result<Option<Message>, ChannelError> {
        match self {
            Self::Socket(channel) => channel.receive().await,
            Self::Wire(wire) => Ok(Some(Message::decode(&wire.receive().await?, &Limits::default())?)),
        }
    }

    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Socket(channel) => channel.is_quiet(),
            Self::Wire(wire) => wire.is_quiet(),
        }
    }
}
