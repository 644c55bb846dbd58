"use strict";

// Names of classes and of files are other people's: they are put into the page as text, never as HTML.

const AT_ONCE = 4;       // requests under way
const KEPT = 60;         // images of this visit that are kept
const TOP = 5;
const COVERAGE = 0.95;
const HOW = { gradcam: "by Grad-CAM", occlusion: "by covering parts of it", attention: "by its attention" };

const $ = (id) => document.getElementById(id);
const entries = [];      // the latest first
const waiting = [];
let about = null;
let token = null;
let running = 0;
let current = null;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// In an element of its own direction, so that a name written from right to left turns nothing around it.
const nameOf = (text, className) => element("bdi", className, text);
const percent = (score) => score >= 0.9995 ? "> 99.9 %" : score < 0.0005 ? "< 0.1 %" : `${(100 * score).toFixed(1)} %`;
const short = (text) => text.length > 80 ? text.slice(0, 80) + "…" : text;

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function ask(path, options = {}) {
  for (;;) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (response.status === 401) {
      await askForToken();
      continue;
    }
    if (response.status === 503) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    let answer = null;
    try { answer = await response.json(); } catch { /* said below */ }
    if (!response.ok) throw new Error(answer?.error || `The server answered with status ${response.status}.`);
    return answer;
  }
}

let tokenAsked = null;
function askForToken() {
  tokenAsked ??= new Promise((done) => {
    $("token").value = "";
    $("asking").showModal();
    $("token-form").addEventListener("submit", () => {
      token = $("token").value;
      tokenAsked = null;
      done();
    }, { once: true });
  });
  return tokenAsked;
}
$("asking").addEventListener("cancel", (event) => event.preventDefault());

async function learn() {
  about = await ask("about");
  document.title = `${about.model} · Foveate`;
  const names = about.class_names;
  const shown = names.slice(0, 12).map(short).join(", ");
  const rest = names.length > 12 ? ` and ${names.length - 12} more` : "";
  $("model").replaceChildren("The model ", nameOf(about.model), ` knows ${names.length} classes: `, nameOf(shown), `${rest}.${about.calibrated ? "" : " Its probabilities are not calibrated."}${about.unlike ? "" : " It cannot say of an image that it is unlike those that it was trained on."}`);
}

// Images come in.

function take(files) {
  const given = [...files];
  if (!given.length) return;
  const images = given.slice(0, KEPT - entries.filter((entry) => entry.state === "waiting").length);
  const left = given.length - images.length;
  complain(left ? `Left out: ${left} of ${given.length} images, as this page keeps ${KEPT}. Give them once the others are answered.` : "");
  for (const file of images) {
    const entry = { file, state: "waiting", answer: null, bitmap: null, map: null, explained: null };
    entries.unshift(entry);
    waiting.push(entry);
  }
  while (entries.length > KEPT) forget(entries.splice(entries.findLastIndex((entry) => entry.state !== "waiting"), 1)[0]);
  work();
  drawHistory();
}

function forget(entry) {
  entry.bitmap?.close();
  entry.map?.close();
}

function work() {
  while (running < AT_ONCE && waiting.length) {
    const entry = waiting.shift();
    running += 1;
    predict(entry).finally(() => { running -= 1; work(); });
  }
}

function address(extra = "") {
  const coverage = about?.sets ? `&coverage=${COVERAGE}` : "";
  return `predict?top_k=${TOP}${coverage}${extra}`;
}

async function predict(entry) {
  try {
    entry.bitmap = await createImageBitmap(entry.file);
  } catch { /* a format that this browser does not know; the server may */ }
  try {
    if (!about) await learn();
    if (entry.file.size > about.body_bytes) {
      throw new Error(`It has ${(entry.file.size / 1e6).toFixed(1)} MB; the server takes ${about.body_bytes / 1e6} MB.`);
    }
    entry.answer = await ask(address(), { method: "POST", body: entry.file });
    entry.state = "done";
    show(entry, { announce: true });
  } catch (error) {
    entry.state = "failed";
    entry.reason = error.message;
    complain(`${short(entry.file.name || "The image")}: ${error.message}`);
  }
  drawHistory();
}

// One image is shown.

function draw(canvas, entry, withMap) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const image = entry.bitmap;
  if (!image) return;
  // The square that the network sees: the middle of the image, all of it beside grey, or all of it squashed.
  const sides = [image.width, image.height], fit = about?.fit;
  const whole = fit === "pad" ? Math.max(...sides) : Math.min(...sides);
  const [width, height] = sides.map((side) => canvas.width * (fit === "squash" ? 1 : side / whole));
  const place = [(canvas.width - width) / 2, (canvas.height - height) / 2, width, height];
  context.fillStyle = "#7f7f7f";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#fff";  // shows through where the image is transparent
  context.fillRect(...place);
  context.imageSmoothingQuality = "high";
  context.imageSmoothingEnabled = Math.min(...sides) > 64;
  context.drawImage(image, ...place);
  if (withMap && entry.map) {
    context.imageSmoothingEnabled = true;
    context.drawImage(entry.map, 0, 0, canvas.width, canvas.height);
  }
}

function show(entry, { announce = false } = {}) {
  current = entry;
  const { predictions, set, unlike } = entry.answer;
  const [best] = predictions;
  $("answer").hidden = false;
  $("answer-title").replaceChildren(nameOf(best.label, "clamp"));
  $("answer-title").title = best.label;
  $("file-name").textContent = short(entry.file.name || "pasted image");
  $("picture").setAttribute("aria-label", `The image ${short(entry.file.name || "that was pasted")}, as the network sees it`);
  $("preview-note").hidden = entry.bitmap !== null;
  $("unlike").hidden = unlike !== true;
  $("classes").replaceChildren(...predictions.map(({ label, score }) => {
    const item = element("li");
    const line = element("div", "line");
    const name = nameOf(label, "clamp");
    name.title = label;
    line.append(name, element("span", "score", percent(score)));
    const track = element("div", "track");
    const bar = element("div", "bar");
    bar.style.width = `${100 * score}%`;
    track.setAttribute("aria-hidden", "true");
    track.append(bar);
    item.append(line, track);
    return item;
  }));
  $("set").hidden = !set;
  if (set) {
    const few = set.slice(0, 12);
    $("set-title").textContent = set.length === about.class_names.length
      ? `For ${100 * COVERAGE} images in 100 to be of one of the classes that are named, all must be named here`
      : `Of images like those it was tested on, ${100 * COVERAGE} in 100 are of one of these classes`;
    const rest = set.length > few.length ? [element("li", "", `and ${set.length - few.length} more`)] : [];
    $("members").replaceChildren(...few.map((name) => {
      const item = element("li");
      const text = nameOf(name, "clamp");
      text.title = name;
      item.append(text);
      return item;
    }), ...rest);
  }
  $("look").hidden = !(about.explain.length && entry.bitmap);
  setLooking(false);
  if (announce) {
    $("live").textContent = `${short(entry.file.name || "The image")}: ${best.label}, ${percent(best.score)}.` +
      (unlike ? " It is unlike what the network was trained on." : "");
  }
  drawHistory();
}

function setLooking(looking) {
  $("look").setAttribute("aria-pressed", String(looking));
  $("look-note").hidden = !looking;
  draw($("picture"), current, looking);
}

$("look").addEventListener("click", async () => {
  const entry = current;
  const looking = $("look").getAttribute("aria-pressed") !== "true";
  if (looking && !entry.map) {
    $("look").disabled = true;
    try {
      const { explanation } = await ask(address(`&explain=${about.explain[0]}`), { method: "POST", body: entry.file });
      entry.explained = explanation;
      entry.map = await toBitmap(explanation.map);
    } catch (error) {
      complain(error.message);
      return;
    } finally {
      $("look").disabled = false;
    }
  }
  if (entry !== current) return;
  if (looking) {
    const how = HOW[entry.explained.method];
    $("look-note").textContent = `Orange: what spoke for “${short(entry.explained.label)}”, ${how}. It is a hint, not a proof.`;
  }
  setLooking(looking);
});

function toBitmap(url) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => createImageBitmap(image).then(done, failed);
    image.onerror = () => failed(new Error("The map cannot be shown."));
    image.src = url;
  });
}

// What was seen in this visit.

function drawHistory() {
  $("past").hidden = entries.length === 0;
  $("history").replaceChildren(...entries.map((entry) => {
    entry.item ??= makeItem(entry);
    entry.update();
    return entry.item;
  }));
}

function makeItem(entry) {
  const item = element("li");
  const button = element("button");
  button.type = "button";
  const canvas = element("canvas");
  canvas.width = canvas.height = 160;
  canvas.setAttribute("aria-hidden", "true");
  const text = element("div", "text");
  button.append(canvas, text);
  item.append(button);
  button.addEventListener("click", () => {
    if (entry.state === "done") { complain(""); show(entry); $("answer").focus(); }
    else if (entry.state === "failed") complain(`${short(entry.file.name || "The image")}: ${entry.reason}`);
  });
  let drawn = "";
  entry.update = () => {
    if (entry === current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    if (drawn === entry.state + !entry.bitmap) return;
    drawn = entry.state + !entry.bitmap;
    draw(canvas, entry, false);
    if (entry.state === "done") {
      const [best] = entry.answer.predictions;
      const name = nameOf(best.label, "clamp name");
      text.replaceChildren(name, element("small", entry.answer.unlike ? "bad" : "", percent(best.score) + (entry.answer.unlike ? ", unlike" : "")));
    } else if (entry.state === "failed") {
      text.replaceChildren(element("small", "bad", "could not be read"));
    } else {
      text.replaceChildren(element("small", "", "under way…"));
    }
  };
  return item;
}

// Ways in.

$("choose").addEventListener("click", () => $("files").click());
for (const id of ["files", "capture"]) {
  $(id).addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
}

let depth = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; document.body.classList.add("over"); });
addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) document.body.classList.remove("over"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else complain("That was an address, not an image: save the image first, then drop the file. The server fetches nothing.");
});

addEventListener("paste", (event) => {
  const files = [...event.clipboardData.items].filter((item) => item.kind === "file").map((item) => item.getAsFile());
  if (files.length) { event.preventDefault(); take(files); }
  else if (!event.target.closest?.("input")) complain("There is no image in the clipboard: copy an image, not its address.");
});

let stream = null;
$("camera").addEventListener("click", async () => {
  if (!navigator.mediaDevices?.getUserMedia) {
    $("capture").click();  // browsers give pages without https no camera, but telephones open their own for this
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch {
    complain("There is no camera that this page may use: allow it in the browser, or choose a file.");
    return;
  }
  $("video").srcObject = stream;
  $("viewfinder").showModal();
});
$("viewfinder").addEventListener("close", () => {
  for (const track of stream?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
});
$("leave").addEventListener("click", () => $("viewfinder").close());
$("shoot").addEventListener("click", () => {
  const video = $("video");
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => {
    if (blob) take([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
    $("viewfinder").close();
  }, "image/jpeg", 0.92);
});

learn().catch((error) => complain(error.message));
