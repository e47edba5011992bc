/** Tests run compiled, with processes of their own (a test may mount, and may leave signals and exit codes behind). */
const needsShare = process.env.ISRFS_DFS_SHARE === undefined ? ['!build/test/dfs/**'] : []
/** hours, for npm run test:long */
const onlyLong =
  process.env.ISRFS_NFS_CAMPAIGN_ROUNDS === undefined ? ['!build/test/end-to-end/nfs-campaigns.test.js'] : []

/** Files that take minutes come first: begun last, one of them would run for long after everything else has ended. */
const LONG = [
  'vmm/guest',
  'end-to-end/nfs',
  'daemon/mount-life',
  'mount-scripts/systemd',
  'end-to-end/cycle',
  'end-to-end/conformance',
  'end-to-end/dashboard'
]

function rank(file) {
  const place = LONG.findIndex((name) => file.endsWith(`${name}.test.js`))
  return place < 0 ? LONG.length : place
}

export default {
  files: ['build/test/**/*.test.js', ...needsShare, ...onlyLong],
  workerThreads: false,
  concurrency: 3, // of two processors, while some wait
  timeout: '20m',
  sortTestFiles: (one, other) => rank(one) - rank(other) || one.localeCompare(other)
}
