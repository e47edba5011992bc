/** Row 13: an import, beside the nearest thing that everybody has. */
import fs from 'node:fs'
import path from 'node:path'
import type { Row, Scale } from './measure.js'
import { type Place, seconds } from './place.js'

const MIB = 2 ** 20

export async function importRows(place: Place, { isQuick, rounds }: Scale): Promise<Row[]> {
  const bytes = (isQuick ? 512 : 2048) * MIB
  const plain = place.directory('mixed')
  // half as above, a quarter that does not compress (it is compressed already), a quarter that is sparse
  place.writeFile(path.join(plain, 'half'), bytes / 2)
  await place.shell(
    `openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c ${bytes / 4} >'${path.join(plain, 'random')}'`
  )
  fs.truncateSync(path.join(plain, 'random'), bytes / 2)
  const rate = async (work: () => Promise<unknown>): Promise<number> => {
    await place.dropCaches()
    return bytes / 1e6 / (await seconds(work))
  }
  return [
    {
      id: '13',
      work: `import of ${bytes / MIB} MiB of mixed data, local share, durable at the end`,
      unit: 'MB/s',
      better: 'more',
      rounds,
      contenders: [
        {
          name: 'isrfs',
          measure: () => {
            const share = place.directory('share')
            const client = place.directory('client')
            return rate(() => place.isrfs(client, 'import', plain, path.join(share, 'vm')))
          }
        },
        {
          name: 'tar | zstd -1',
          measure: () => {
            const file = path.join(place.directory('tar'), 'vm.tar.zst')
            return rate(() => place.shell(`tar -C '${plain}' -c . | zstd -q -1 -T2 -o '${file}' && sync '${file}'`))
          }
        }
      ],
      goals: [{ factor: 300 }, { against: 'tar | zstd -1', factor: 1.5 }]
    }
  ]
}
