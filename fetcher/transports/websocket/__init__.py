"""ws and wss: web sockets (RFC 6455).

transport     the section ``websocket`` of a config, and what all fetches share
fetch         one job: handshake, payload, messages
handshake     what is offered and agreed to; pure
conversation  frames and what they mean, from the handshake to the close
receiving     which messages are waited for, and the body that they become
"""

from fetcher.transports.websocket.transport import WebSocketConfig, WebSocketTransport

__all__ = ["WebSocketConfig", "WebSocketTransport"]
