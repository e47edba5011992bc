/** The transports' suite against the direct one. */
import test from 'ava'
import { defineTransportSuite } from './transport-suite.js'

defineTransportSuite(test, 'direct')
