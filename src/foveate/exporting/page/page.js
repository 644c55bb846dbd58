"use strict";
const byId = (id) => document.getElementById(id);
const card = JSON.parse(byId("card").textContent);
const SIZE = card.imgsz[0];
const PATCH = Math.max(2, Math.round(SIZE / 4)), STRIDE = Math.max(1, Math.round(SIZE / 8));

function bytesOf(id) {
  const element = byId(id), text = atob(element.textContent);
  element.remove();
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

async function unpacked(id) {
  const stream = new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let runtime;
const session = (async () => {
  const script = new Blob([await unpacked("runtime")], { type: "text/javascript" });
  runtime = await import(URL.createObjectURL(script));
  runtime.env.wasm.wasmBinary = (await unpacked("wasm")).buffer;
  runtime.env.wasm.numThreads = 1; // more need headers that a file has not
  runtime.env.logLevel = "fatal";
  return runtime.InferenceSession.create(await unpacked("model"), { executionProviders: ["wasm"] });
})();

// Pixels [SIZE, SIZE, 3] of an image file, as Foveate makes them: turned upright, laid over white and resized.
async function decode(blob) {
  const image = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, image.width, image.height);
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  const pixels = fit(data, image.width, image.height, SIZE, card.fit);
  pixels.sides = [image.width, image.height];
  image.close();
  return pixels;
}

// Logits, a row for each of some images [SIZE, SIZE, 3].
async function run(images) {
  const network = await session, area = SIZE * SIZE;
  const batch = new Uint8Array(images.length * 3 * area);
  images.forEach((pixels, place) => {
    for (let at = 0; at < area; at++)
      for (let c = 0; c < 3; c++) batch[(place * 3 + c) * area + at] = pixels[at * 3 + c];
  });
  const input = new runtime.Tensor("uint8", batch, [images.length, 3, SIZE, SIZE]);
  const { logits } = await network.run({ images: input }, ["logits"]);
  const classes = card.names.length;
  return images.map((_, place) => Array.from(logits.data.subarray(place * classes, (place + 1) * classes)));
}

function logSumExp(values) {
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

function probabilitiesOf(logits) {
  const scaled = logits.map((value) => value / (card.confidence.temperature || 1));
  const total = logSumExp(scaled);
  return scaled.map((value) => Math.exp(value - total));
}

// What the network says of pixels: the same formulas as `Confidence`.
function judged(logits) {
  const probabilities = probabilitiesOf(logits);
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const { unlike, scores } = card.confidence;
  let set = null;
  if (scores && scores.length) {
    const needed = Math.ceil((scores.length + 1) * 0.95 - 1e-9);
    const limit = needed <= scores.length ? scores[needed - 1] : Infinity;
    let before = 0;
    set = order.filter((index) => {
      const inside = Math.min(before, 1) <= limit;
      before += probabilities[index];
      return inside;
    });
  }
  return { order, probabilities, set, unlike: unlike ? -logSumExp(logits) > unlike.threshold : null };
}

// How much covering each patch by the mean colour takes from the probability of a class (Zeiler and Fergus 2014).
async function occlusion(pixels, label) {
  const mean = [0, 1, 2].map((c) => {
    let sum = 0;
    for (let at = c; at < pixels.length; at += 3) sum += pixels[at];
    return sum / (SIZE * SIZE);
  });
  const places = [];
  for (let y = STRIDE - PATCH; y < SIZE; y += STRIDE) for (let x = STRIDE - PATCH; x < SIZE; x += STRIDE) places.push([x, y]);
  const within = (start) => [Math.max(start, 0), Math.min(start + PATCH, SIZE)];
  const drop = new Float64Array(SIZE * SIZE), count = new Float64Array(SIZE * SIZE);
  const whole = probabilitiesOf((await run([pixels]))[0])[label];
  for (let start = 0; start < places.length; start += 16) {
    const some = places.slice(start, start + 16);
    const covered = some.map(([left, top]) => {
      const copy = pixels.slice(), [x0, x1] = within(left), [y0, y1] = within(top);
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) for (let c = 0; c < 3; c++) copy[(y * SIZE + x) * 3 + c] = mean[c];
      return copy;
    });
    (await run(covered)).forEach((logits, place) => {
      const lost = whole - probabilitiesOf(logits)[label], [x0, x1] = within(some[place][0]), [y0, y1] = within(some[place][1]);
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) { drop[y * SIZE + x] += lost; count[y * SIZE + x] += 1; }
    });
  }
  return drop.map((value, at) => value / count[at]);
}

function paint(canvas, colour) {
  canvas.width = canvas.height = SIZE;
  const context = canvas.getContext("2d"), image = context.createImageData(SIZE, SIZE);
  for (let at = 0; at < SIZE * SIZE; at++) image.data.set(colour(at), at * 4);
  context.putImageData(image, 0, 0);
}

// A name may be written from right to left, and must not turn the words around it.
const isolated = (name) => `\u2068${name}\u2069`;

function setWords(set) {
  if (set.length === card.names.length) return "For 95 images in 100 to be of one of the classes that are named, all must be named here";
  return "In 95 of 100 images like those it was measured on, the true class is among those that are named so; here";
}

let current = 0, shown = null;
async function show(blob) {
  const turn = ++current;
  byId("status").textContent = "Looking…";
  let pixels, told;
  try {
    pixels = await decode(blob);
  } catch {
    if (turn !== current) return;
    byId("result").hidden = true;  // what is still there would be taken for the answer
    byId("status").textContent = `${isolated(blob.name ?? "This")} is not an image that the browser can read.`;
    return;
  }
  try {
    told = judged((await run([pixels]))[0]);
  } catch (error) {
    byId("result").hidden = true;
    byId("status").textContent = `The network cannot be run in this browser: ${error.message}`;
    return;
  }
  if (turn !== current) return;
  shown = { pixels, label: told.order[0] };
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  paint(byId("seen"), (at) => [...pixels.subarray(at * 3, at * 3 + 3), 255]);
  byId("sides").textContent = `${blob.name ? `${isolated(blob.name)}: ` : ""}${SIZE} × ${SIZE} pixels of ${pixels.sides[0]} × ${pixels.sides[1]}`;
  byId("label").textContent = card.names[told.order[0]];
  byId("which").textContent = card.names[told.order[0]];
  byId("unlike").hidden = !told.unlike;
  byId("bars").replaceChildren(...told.order.slice(0, 5).map((index) => {
    const row = document.createElement("li"), line = document.createElement("p"), bar = document.createElement("div");
    const name = document.createElement("b"), value = document.createElement("span"), filled = document.createElement("i");
    row.className = "bar";
    name.textContent = card.names[index];
    value.textContent = percent(told.probabilities[index]);
    filled.style.width = `${100 * told.probabilities[index]}%`;
    line.append(name, value);
    bar.append(filled);
    row.append(line, bar);
    return row;
  }));
  byId("set").hidden = !told.set;
  if (told.set) byId("set").textContent = `${setWords(told.set)}: ${told.set.slice(0, 20).map((index) => isolated(card.names[index])).join(", ")}${told.set.length > 20 ? ` and ${told.set.length - 20} more` : ""}.`;
  byId("map").hidden = byId("told").hidden = true;
  byId("look").setAttribute("aria-pressed", "false");
  byId("result").hidden = false;
  byId("status").textContent = `${isolated(card.names[told.order[0]])}: ${percent(told.probabilities[told.order[0]])}${told.unlike ? "; unlike what it was trained on" : ""}`;
}

async function look() {
  const pressed = byId("look").getAttribute("aria-pressed") !== "true", { pixels, label } = shown;
  if (pressed) {
    byId("look").disabled = true;
    const map = await occlusion(pixels, label);
    byId("look").disabled = false;
    if (shown.pixels !== pixels) return;
    const most = map.reduce((a, b) => Math.max(a, b), 1e-6);
    paint(byId("map"), (at) => [220, 40, 20, Math.round(255 * Math.max(0, map[at]) / most)]);
  }
  byId("map").hidden = byId("told").hidden = !pressed;
  byId("look").setAttribute("aria-pressed", String(pressed));
}

function chosen(input) {
  input.addEventListener("change", () => { if (input.files[0]) show(input.files[0]); input.value = ""; });
}

let stream = null;
function close() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  byId("live").hidden = true;
}

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    byId("camera").hidden = true;
    byId("capture").hidden = false;
    byId("status").textContent = "The camera cannot be used from here: take a photograph instead.";
    return;
  }
  byId("video").srcObject = stream;
  byId("live").hidden = false;
  await byId("video").play();
}

function snap() {
  const video = byId("video"), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  close();
  canvas.toBlob(show);
}

byId("about").textContent = `Tells ${card.names.length} classes apart: ${card.names.slice(0, 12).map(isolated).join(", ")}${card.names.length > 12 ? ", …" : ""}. ${card.proof ? `Proved on ${card.proof.images.toLocaleString("en")} images to give what the trained network gives${card.precision === "int8" ? ", but for the rounding to 8 bits" : ""}.` : "Unproved: nobody measured whether it gives what the trained network gives."}`;
chosen(byId("file"));
chosen(byId("shot"));
if (window.isSecureContext && navigator.mediaDevices) {
  byId("camera").hidden = false;
  byId("capture").hidden = true;
}
byId("camera").addEventListener("click", openCamera);
byId("snap").addEventListener("click", snap);
byId("stop").addEventListener("click", close);
byId("look").addEventListener("click", look);
byId("notices").addEventListener("click", async () => {
  byId("noticed").textContent = new TextDecoder().decode(await unpacked("notice-text"));
  byId("noticed").hidden = false;
  byId("notices").hidden = true;
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (file) show(file);
});
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
  });
card.examples.forEach((url, number) => {
  const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
  image.src = url;
  image.alt = `example ${number + 1}`;
  button.append(image);
  button.addEventListener("click", async () => {
    const text = atob(url.split(",")[1]);
    show(new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type: "image/png" }));
  });
  item.append(button);
  byId("examples").querySelector("ul").append(item);
  byId("examples").hidden = false;
});
session.then(
  () => { if (!current) byId("status").textContent = "Ready."; },
  (error) => { byId("status").textContent = `The network cannot be loaded in this browser: ${error.message}`; },
);
// For whoever wants to ask many images from a script: the class and the probabilities of an image file.
window.foveate = { ask: async (blob) => { const pixels = await decode(blob); return { ...judged((await run([pixels]))[0]), pixels }; } };
