// OpenAI's API as npm's `openai` calls it: node openai.mjs ADDRESS TOKEN; prints what came as JSON.
import OpenAI, { toFile } from "openai";

const [address, token] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: token, maxRetries: 0 });
const common = { size: "128x128", seed: 42, steps: 6, guidance: 4 };

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const drawn = await client.images.generate({ prompt: "a red house on green grass", ...common });
const picture = Buffer.from(drawn.data[0].b64_json, "base64");

const events = [];
const stream = await client.images.generate({
  prompt: "a red house on green grass", stream: true, partial_images: 1, ...common, steps: 40,
});
for await (const event of stream) events.push(event.type);

const edited = await client.images.edit({
  image: await toFile(picture, "house.png", { type: "image/png" }), prompt: "a blue house", steps: 4,
});

let refused = null;
try {
  await client.images.generate({ prompt: "" });
} catch (error) {
  refused = { name: error.constructor.name, status: error.status, param: error.param };
}

console.log(JSON.stringify({
  models, events, refused,
  usage: drawn.usage.input_tokens,
  picture: drawn.data[0].b64_json,
  edited: edited.data[0].b64_json,
}));
