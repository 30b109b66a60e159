// Prints URLs that imgproxy's own library (@imgproxy/imgproxy-node) signs, as JSON, for the test
// `oracle_signs_the_same_urls` of src/signer/imgproxy.rs: with keys and salts of many lengths, and several options, sources and times.
import { randomBytes } from 'node:crypto';
import { generateImageUrl } from '@imgproxy/imgproxy-node';

const lengths = [1, 8, 31, 32, 33, 63, 64, 65, 127, 200];
const choices = [
    {},
    { quality: 80 },
    { quality: 80, strip_metadata: 1, auto_rotate: 1 },
    { strip_metadata: 1, format: 'webp' },
];
const cases = [];
for (const [number, length] of [...lengths, ...lengths, ...lengths, ...lengths].entries()) {
    const [key, salt] = [length, lengths[(number * 7) % lengths.length]].map((bytes) => randomBytes(bytes).toString('hex'));
    const base = ['https://img.example', 'https://img.example/pictures', 'http://127.0.0.1:8080'][number % 3];
    const bucket = ['photos', 'my.bucket-1'][number % 2];
    const object = `u/${randomBytes(16).toString('hex')}/${randomBytes(16).toString('hex')}`;
    const side = [640, 1600, 1, 65535][number % 4];
    const expires = 1795341900 + number * 7919;
    const url = generateImageUrl({
        endpoint: base,
        url: { value: `s3://${bucket}/${object}`, displayAs: 'plain' },
        options: { resize: { resizing_type: 'fit', width: side, height: side }, expires, ...choices[number % choices.length] },
        key,
        salt,
    });
    cases.push({ base, key, salt, bucket, object, side, expires, url });
}
console.log(JSON.stringify(cases));
