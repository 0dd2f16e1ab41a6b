// Sends each dropped or chosen file to the server's :explain and shows the answer.

const AT_ONCE = 4;
const TRIES = 30;

const find = (selector, within = document) => within.querySelector(selector);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

async function showModel() {
  const model = await (await fetch("/model")).json();
  find("#model").textContent =
    `${model.name}, version ${model.version}: ${model.recipe}, ${model.starting_point}`;
  showTrust(model.trust);
  find("#quick").hidden = !model.quick;
  find("#phantoms").hidden = !model.phantoms;
  const rows = find("#recall tbody");
  rows.replaceChildren();
  for (const row of model.recall) {
    const cells = [row.class, percent(row.value), `${percent(row.low)} to ${percent(row.high)}`];
    const line = rows.insertRow();
    for (const text of cells) line.insertCell().textContent = text;
    const bar = document.createElement("span");
    const part = document.createElement("i");
    bar.className = "bar";
    bar.style.display = "block";
    part.style.left = `${100 * row.low}%`;
    part.style.width = `${100 * (row.high - row.low)}%`;
    bar.append(part);
    line.insertCell().append(bar);
  }
  find("#recall").hidden = false;
  return model.name;
}

const VERDICTS = {
  trusted: "This model is trusted: its audit broke no rule. Its answers are still not diagnoses.",
  unproven: "This model is unproven: no rule is broken, but one that is needed could not be judged.",
  "not trusted": "This model is not trusted: do not rely on its answers.",
};

function showTrust(trust) {
  const place = find("#trust");
  find("b", place).textContent = VERDICTS[trust.verdict];
  place.classList.toggle("warning", trust.verdict !== "trusted");
  const reasons = trust.reasons.map((reason) => {
    const line = document.createElement("li");
    line.textContent = reason;
    return line;
  });
  find("ul", place).replaceChildren(...reasons);
  place.hidden = false;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("the file cannot be read"));
    reader.readAsDataURL(file);
  });
}

// An empty file has no comma in its data URL; the server says what is wrong with it.
async function explain(name, file) {
  const b64 = file.size ? await base64(file) : "";
  const body = JSON.stringify({ instances: [{ image_bytes: { b64 } }] });
  for (let attempt = 1; ; attempt += 1) {
    const answer = await fetch(`/v1/models/${name}:explain`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
    });
    const told = await answer.json().catch(() => ({ error: `the server answers ${answer.status}` }));
    if (answer.ok) return told;
    if (answer.status !== 503 || attempt === TRIES) {
      throw new Error(told.error.replace(/^instances\[0\]/, "This file"));
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function show(article, told) {
  const [prediction] = told.predictions;
  const [explanation] = told.explanations;
  showTrust(prediction.trust);  // a new version may have answered
  find(".label", article).textContent = prediction.abstained ? "no answer" : prediction.label;
  if (prediction.abstained) {
    const place = find(".abstained", article);
    place.textContent =
      "The model abstains: this image is unlike its training images, so an answer would mean nothing. " +
      `(Out-of-distribution score ${prediction.ood_score.toFixed(2)}; the model abstains above 1.)`;
    place.hidden = false;
  }
  const picture = find(".picture", article);
  const overlay = find(".overlay", article);
  const slider = find("input", article);
  picture.src = `data:image/png;base64,${explanation.picture.b64}`;
  picture.alt = "the radiograph";
  overlay.src = `data:image/png;base64,${explanation.overlay.b64}`;
  overlay.alt = `evidence for ${explanation.label}`;
  const fade = () => { overlay.style.opacity = slider.value / 100; };
  slider.addEventListener("input", fade);
  fade();
  find("figure", article).hidden = false;
  if (prediction.suspect) {
    const doubt = find(".suspicion", article);
    doubt.textContent = `This does not look like a frontal chest X-ray: ${prediction.reasons.join("; ")}.`;
    doubt.hidden = false;
  }
  if (prediction.abstained) return;
  const shares = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, share] of shares) {
    const line = find("#share").content.cloneNode(true);
    find(".name", line).textContent = name;
    find(".value", line).textContent = percent(share);
    find(".bar i", line).style.width = `${100 * share}%`;
    find(".shares", article).append(line);
  }
}

const waiting = [];
let working = 0;
let done = 0;

function tell() {
  const all = waiting.length + working + done;
  find("#status").textContent = all ? `${done} of ${all} answered` : "";
}

function take(files) {
  for (const file of files) {
    const article = find("#result").content.cloneNode(true).firstElementChild;
    find("h2", article).textContent = file.name;
    find(".label", article).textContent = "…";
    find("figure", article).hidden = true;
    find("#results").append(article);
    waiting.push([file, article]);
  }
  work();
}

function work() {
  tell();
  while (waiting.length && working < AT_ONCE) {
    const [file, article] = waiting.shift();
    working += 1;
    answer(file, article);
  }
}

async function answer(file, article) {
  try {
    show(article, await explain(await model, file));
  } catch (error) {
    find(".label", article).textContent = "";
    const place = find(".error", article);
    place.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    place.hidden = false;
  }
  working -= 1;
  done += 1;
  work();
}

const model = showModel();
model.catch(() => { find("#model").textContent = "The server cannot be reached."; });

const drop = find("#drop");
const input = find("#files");
input.addEventListener("change", () => { take(input.files); input.value = ""; });
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
}
document.addEventListener("drop", (event) => take(event.dataTransfer.files));
