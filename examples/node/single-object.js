/**
 * Avro's single-object encoding: two marker bytes, the fingerprint of the writer's schema, the body.
 * In: an .avsc as text, then values. Out: a Buffer a value.
 */
import avsc from 'avsc';

const MARKER = Buffer.from([0xc3, 0x01]);
const EMPTY = 0xc15d213aa4d7a795n;

/** An encoder for the schema; what it throws says which field does not fit. */
export function singleObjectEncoder(avscText) {
  const type = avsc.Type.forSchema(JSON.parse(avscText), { wrapUnions: true });
  const header = Buffer.concat([MARKER, fingerprint(canonicalForm(type))]);
  return (value) => Buffer.concat([header, type.toBuffer(value)]);
}

/** The Parsing Canonical Form, which leaves out docs, defaults and logical types; avsc's schema() is that. */
function canonicalForm(type) {
  return Buffer.from(JSON.stringify(type.schema()));
}

/** CRC-64-AVRO, little-endian, as the Avro specification defines it ("Schema Fingerprints"). */
function fingerprint(bytes) {
  let crc = EMPTY;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1n) ^ (crc & 1n ? EMPTY : 0n);
  }
  const little = Buffer.alloc(8);
  little.writeBigUInt64LE(crc);
  return little;
}
