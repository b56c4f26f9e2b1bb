// An Express service with a KafkaJS producer: answers when all in-sync replicas have the record.
import express from 'express'
import { Kafka, logLevel } from 'kafkajs'

const { PORT, BOOTSTRAP, TOPIC } = process.env
const producer = new Kafka({ clientId: 'express', brokers: [BOOTSTRAP], logLevel: logLevel.ERROR }).producer()
const app = express()
app.disable('x-powered-by')
app.use(express.json({ limit: '64mb' }))

function message(record) {
  const { project, value } = record ?? {}
  if (typeof project !== 'string' || value === undefined) return null
  const isObject = value !== null && typeof value === 'object' && !Array.isArray(value)
  return { value: JSON.stringify(isObject ? { ...value, project } : { value, project }) }
}

async function send(messages, response) {
  if (messages.some((one) => one === null)) return response.status(400).json({ ok: false })
  try {
    await producer.send({ topic: TOPIC, acks: -1, messages })
    response.status(202).json({ ok: true, count: messages.length })
  } catch (error) {
    response.status(503).json({ ok: false, error: error.message })
  }
}

app.get('/health', (request, response) => response.send('ok'))
app.post('/logs', (request, response) => send([message(request.body)], response))
app.post('/produce/batch', (request, response) =>
  Array.isArray(request.body) ? send(request.body.map(message), response) : response.status(400).json({ ok: false }))

await producer.connect()
app.listen(Number(PORT), '127.0.0.1')
