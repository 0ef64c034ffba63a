// The tutorial's Express gateway over Octopush, as people write it: statuses in a Map, axios to the
// provider before the answer, no database, no authentication. The yardstick of scripts/bench.
'use strict';

const { randomInt } = require('node:crypto');
const axios = require('axios');
const express = require('express');

const { PORT, PROVIDER_URL, API_LOGIN, API_KEY } = process.env;
const headers = { 'api-login': API_LOGIN, 'api-key': API_KEY, 'cache-control': 'no-cache' };
const messages = new Map(); // message id → { number, code, status, updated }

const app = express();
app.use(express.json());

app.get('/', (request, response) => response.json({ messages: messages.size }));

app.post('/otp/send', async (request, response) => {
  const number = request.body.to;
  if (!number) return response.status(400).json({ error: 'to is required' });
  const code = String(randomInt(1_000_000)).padStart(6, '0');
  try {
    const answer = await axios.post(
      `${PROVIDER_URL}/sms-campaign/send`,
      {
        recipients: [{ phone_number: number }],
        text: `${code} is your code. It is valid for 5 minutes.`,
        type: 'sms_premium',
        purpose: 'alert',
        sender: 'BENCH',
        auto_optimize_text: false,
      },
      { headers },
    );
    const id = answer.data.sms_ticket;
    messages.set(id, { number, code, status: 'SENT', updated: new Date() });
    return response.json({ message_id: id, status: 'SENT' });
  } catch (error) {
    return response.status(502).json({ error: error.message });
  }
});

app.post('/otp/delivered', (request, response) => {
  const message = messages.get(request.body.message_id);
  if (message) { // under load a receipt overtakes the answer to our own call, and is lost
    message.status = request.body.status;
    message.updated = new Date();
  }
  response.status(200).end();
});

app.post('/otp/status', (request, response) => {
  const message = messages.get(request.body.message_id);
  if (!message) return response.status(404).json({ error: 'unknown message' });
  return response.json({ number: message.number, status: message.status, updated: message.updated });
});

const server = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening on ${PORT}`);
});
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
