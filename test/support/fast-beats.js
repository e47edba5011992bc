/**
 * Preloaded into isrfs (node --import) by test/support/two-clients.py: holders show five times as often that they live, and
 * `lease --break` watches a fifth of the time. Nothing else runs on another clock.
 */
const SPEED = 5
const BEAT_INTERVAL_MS = 5000
const { setInterval, setTimeout } = globalThis

if (process.argv.includes('lease')) {
  const { now } = Date
  const startMs = now()
  Date.now = () => startMs + (now() - startMs) * SPEED
  globalThis.setTimeout = (callback, ms, ...rest) => setTimeout(callback, (ms ?? 0) / SPEED, ...rest)
} else {
  globalThis.setInterval = (callback, ms, ...rest) =>
    setInterval(callback, ms === BEAT_INTERVAL_MS ? ms / SPEED : ms, ...rest)
}
