/** Tests run compiled, with processes of their own (a test may mount, and may leave signals and exit codes behind). */
const needsShare = process.env.ISRFS_DFS_SHARE === undefined ? ['!build/test/dfs/**'] : []

export default {
  files: ['build/test/**/*.test.js', ...needsShare],
  workerThreads: false,
  concurrency: 2,
  timeout: '10m'
}
