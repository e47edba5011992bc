/** node --require: as if the FUSE binding were not installed. */
const Module = require('node:module')
const load = Module._load
Module._load = function (name, ...rest) {
  if (name === 'fuse-native') throw new Error("Cannot find module 'fuse-native'")
  return load.call(this, name, ...rest)
}
