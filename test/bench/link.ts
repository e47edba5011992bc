/**
 * A share behind a slow link: sshfs to a server in a network namespace of its own, over a veth pair that is limited in both
 * directions. The counters of the pair tell what has travelled. Needs root, sshfs, openssh-server, iproute2.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import type { Contender } from './measure.js'
import type { Place } from './place.js'

export interface Link {
  readonly mountpoint: string
  /** bytes that went over the link, both ways, with everything that ssh adds */
  bytes(): number
  sentBytes(): number
  /** Changes how fast it is, both ways. */
  setRate(rate: string): Promise<void>
}

const PORT = '2222'

/** Shows `directory` at the link's mountpoint until the row ends. `rate` as tc writes it: 100mbit, 1gbit. */
export async function slowLink(place: Place, directory: string, rate: string): Promise<Link> {
  const space = `isrfs-bench-${process.pid}`
  const here = `ib${process.pid % 100000}a`
  const there = `ib${process.pid % 100000}b`
  const net = `10.${90 + (process.pid % 100)}.${Math.floor(process.pid / 100) % 250}`
  const state = place.directory('link')
  const mountpoint = place.directory('slow')
  fs.chmodSync(state, 0o755)
  fs.mkdirSync('/run/sshd', { recursive: true })
  for (const key of ['key', 'hostkey']) {
    await place.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path.join(state, key)])
  }
  fs.copyFileSync(path.join(state, 'key.pub'), path.join(state, 'authorized'))
  const limit = `root tbf rate ${rate} burst 256k latency 300ms`
  place.defer(() => place.shell(`ip netns del ${space}; ip link del ${here} 2>/dev/null; true`))
  await place.shell(`set -e
    ip netns add ${space}; ip link add ${here} type veth peer name ${there} netns ${space}
    ip addr add ${net}.1/24 dev ${here}; ip link set ${here} up
    ip -n ${space} addr add ${net}.2/24 dev ${there}; ip -n ${space} link set ${there} up; ip -n ${space} link set lo up
    tc qdisc add dev ${here} ${limit}; ip netns exec ${space} tc qdisc add dev ${there} ${limit}`)
  const server = spawn(
    'ip',
    [
      'netns',
      'exec',
      space,
      '/usr/sbin/sshd',
      '-D',
      '-f',
      '/dev/null',
      '-h',
      path.join(state, 'hostkey'),
      '-p',
      PORT
    ].concat(
      [
        `ListenAddress=${net}.2`,
        `AuthorizedKeysFile=${path.join(state, 'authorized')}`,
        'StrictModes=no',
        'UsePAM=no',
        'PidFile=none',
        'Subsystem=sftp internal-sftp'
      ].flatMap((option) => ['-o', option])
    ),
    { stdio: 'ignore' }
  )
  place.defer(() => server.kill())
  const options = `IdentityFile=${path.join(state, 'key')},StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,LogLevel=ERROR,Ciphers=aes128-gcm@openssh.com,kernel_cache`
  for (let attempt = 0; ; attempt++) {
    try {
      await place.run('sshfs', ['-p', PORT, '-o', options, `root@${net}.2:${directory}`, mountpoint])
      break
    } catch (error) {
      if (attempt === 50) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  place.defer(() => place.run('fusermount3', ['-u', mountpoint]))
  const counter = (name: string): number =>
    Number(fs.readFileSync(`/sys/class/net/${here}/statistics/${name}`, 'utf8').trim())
  return {
    mountpoint,
    bytes: () => counter('tx_bytes') + counter('rx_bytes'),
    sentBytes: () => counter('tx_bytes'),
    setRate: async (changed) => {
      const limit = `root tbf rate ${changed} burst 256k latency 300ms`
      await place.shell(`set -e
        tc qdisc change dev ${here} ${limit}; ip netns exec ${space} tc qdisc change dev ${there} ${limit}`)
    }
  }
}

/** The same work while the link is as fast as that; afterwards it is as it was. */
export function atRate(link: Link, rate: string, usual: string, contender: Contender): Contender {
  return {
    ...contender,
    measure: async () => {
      await link.setRate(rate)
      try {
        return await contender.measure()
      } finally {
        await link.setRate(usual)
      }
    }
  }
}

/** Waits until nothing travels any more; resolves to the time of the last bytes, by process.hrtime. */
export async function quiet(link: Link, silenceMs = 2500): Promise<bigint> {
  let last = link.sentBytes()
  let lastNs = process.hrtime.bigint()
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 100))
    const now = link.sentBytes()
    if (now - last > 20_000) {
      last = now
      lastNs = process.hrtime.bigint()
    } else if (Number(process.hrtime.bigint() - lastNs) / 1e6 > silenceMs) return lastNs
  }
}
