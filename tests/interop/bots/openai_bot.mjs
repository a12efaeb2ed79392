// The OpenAI Agents SDK's Twilio transport between the call and a realtime server. Arguments: port, URL of that server.
import { TwilioRealtimeTransportLayer } from '@openai/agents-extensions';
import { WebSocketServer } from 'ws';

const [port, url] = process.argv.slice(2);

new WebSocketServer({ host: '127.0.0.1', port: Number(port) }).on('connection', (socket) => {
  const transport = new TwilioRealtimeTransportLayer({ twilioWebSocket: socket, url });
  transport.on('error', (error) => console.error(error));
  // what the server ends, the bot hangs up
  transport.on('connection_change', (status) => status === 'disconnected' && socket.close(1000));
  transport.connect({ apiKey: 'none', url, initialSessionConfig: {} }).catch((error) => console.error(error));
});
