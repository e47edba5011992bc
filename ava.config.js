/** Tests run compiled, with processes of their own (a test may mount, and may leave signals and exit codes behind). */
export default {
  files: ['build/test/**/*.test.js'],
  workerThreads: false,
  concurrency: 2,
  timeout: '10m'
}
