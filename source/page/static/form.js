// The form of a task: entries of lists come and go, files are uploaded where they are chosen, a search box finds fields.
"use strict";

// -- entries of lists ------------------------------------------------------------------------------------------------

let added = Date.now();

function addItem(list) {
  const template = list.querySelector(":scope > template");
  const items = list.querySelector(":scope > ol");
  const place = `__${list.dataset.depth}__`;
  // later entries come last, whatever was removed: numbers need not be without gaps
  added += 1;
  items.insertAdjacentHTML("beforeend", template.innerHTML.replaceAll(place, String(added)));
  const item = items.lastElementChild;
  prepare(item);
  number(items);
  return item;
}

function removeItem(button) {
  const item = button.closest("li");
  const items = item.parentElement;
  const next = item.nextElementSibling || item.previousElementSibling;
  item.remove();
  number(items);
  const target = next?.querySelector("input:not([type=hidden]), select, textarea") ||
    items.closest("fieldset").querySelector(":scope > .row > .add");
  target.focus();
}

function number(items) {
  [...items.children].forEach((item, index) => {
    const place = item.querySelector(":scope > .grow .place");
    if (place) place.textContent = String(index + 1);
  });
}

// -- uploads ---------------------------------------------------------------------------------------------------------

// one for all buttons: what is not in the page may be gone before somebody has chosen
let chooser;

function chooseFiles(button) {
  chooser?.remove();
  chooser = document.createElement("input");
  chooser.type = "file";
  chooser.hidden = true;
  chooser.accept = button.dataset.accept;
  chooser.multiple = "several" in button.dataset;
  chooser.addEventListener("change", (event) => takeFiles(button, [...event.target.files]));
  document.body.append(chooser);
  chooser.click();
}

function takeFiles(button, files) {
  const kind = button.dataset.accept.split("/")[0];
  if (!("several" in button.dataset)) {
    if (files.length) send(files[0], kind, button.closest(".media-input"));
    return;
  }
  const list = button.closest("fieldset.list");
  for (const file of files) send(file, kind, addItem(list).querySelector(".media-input"));
}

// Bytes as they are, so that the server writes them as they come.
function send(file, kind, place) {
  const form = place.closest("form");
  const text = place.querySelector("input");
  const said = status(place);
  const most = Number(form.dataset.mostMb);
  said.classList.toggle("bad", file.size > most * 1024 * 1024);
  if (said.classList.contains("bad")) {
    // a browser sends all of a file before it hears that nobody takes it
    said.textContent = `${file.name} has ${Math.ceil(file.size / 1024 / 1024)} MB; at most ${most} MB (setting MAX_UPLOAD_MB) are taken`;
    return;
  }
  const request = new XMLHttpRequest();
  const query = new URLSearchParams({ name: file.name, kind, project: form.elements._project.value });
  request.open("POST", `${form.dataset.upload}?${query}`);
  request.setRequestHeader("X-CSRF-Token", form.elements.csrf.value);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.addEventListener("progress", (event) => {
    // in quarters: a screen reader says each of them
    if (event.lengthComputable) said.textContent = `${file.name}: ${25 * Math.floor(4 * event.loaded / event.total)} %`;
  });
  request.addEventListener("loadend", () => {
    form.dataset.sending = String(Number(form.dataset.sending || 0) - 1);
    document.getElementById("waits").textContent = "";
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* no JSON: the status says enough */ }
    if (request.status === 201) {
      text.value = answer.reference;
      text.dispatchEvent(new Event("change", { bubbles: true }));
      said.textContent = `${answer.name} was uploaded`;
      said.classList.remove("bad");
    } else {
      said.textContent = answer.error || (request.status ? `not uploaded (${request.status})` : "not uploaded: the connection broke");
      said.classList.add("bad");
    }
  });
  form.dataset.sending = String(Number(form.dataset.sending || 0) + 1);
  said.textContent = `${file.name}: 0 %`;
  request.send(file);
}

function status(place) {
  let said = place.querySelector(".upload-status");
  if (!said) {
    said = document.createElement("p");
    said.className = "upload-status field-help";
    said.setAttribute("role", "status");
    place.append(said);
  }
  return said;
}

// A picture of what was uploaded, from our own address.
function showPicture(place) {
  place.querySelector(".thumb")?.remove();
  const text = place.querySelector("input").value;
  if (!text.startsWith("uploads/")) return;
  const kind = place.dataset.media;
  if (kind !== "image" && kind !== "video") return;
  const picture = document.createElement(kind === "image" ? "img" : "video");
  picture.className = "thumb";
  picture.src = `/uploads/${encodeURIComponent(text.slice("uploads/".length))}`;
  if (kind === "image") picture.alt = "the uploaded image";
  else picture.muted = true;
  place.prepend(picture);
}

// -- finding ---------------------------------------------------------------------------------------------------------

function find(box) {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const item of document.querySelectorAll(box.dataset.finds)) {
    const text = item.dataset.find.toLowerCase();
    item.hidden = !words.every((word) => text.includes(word));
    found += item.hidden ? 0 : 1;
  }
  for (const section of document.querySelectorAll(".task-form details.more")) {
    const fields = section.querySelectorAll(":scope > .fields > .field");
    if (!fields.length) continue;
    const any = [...fields].some((field) => !field.hidden);
    section.hidden = !any;
    if (!("was" in section.dataset)) section.dataset.was = section.open ? "open" : "";
    section.open = words.length ? any : section.dataset.was === "open";
    if (!words.length) delete section.dataset.was;
  }
  const none = document.getElementById("types-none");
  if (none) none.hidden = found > 0;
}

// -- the page --------------------------------------------------------------------------------------------------------

function prepare(part) {
  for (const button of part.querySelectorAll("button.add, button.remove, button.upload")) button.hidden = false;
  for (const place of part.querySelectorAll(".media-input")) showPicture(place);
}

function openTo(element) {
  for (let details = element?.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.classList.contains("add")) {
    addItem(button.closest("fieldset")).querySelector("input:not([type=hidden]), select, textarea")?.focus();
  } else if (button?.classList.contains("remove")) removeItem(button);
  else if (button?.classList.contains("upload")) chooseFiles(button);
  const link = event.target.closest("#problems a");
  if (link) {
    const target = document.getElementById(link.hash.slice(1));
    openTo(target);
    target?.focus();
    event.preventDefault();
    target?.scrollIntoView({ block: "center" });
  }
});
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-finds]")) find(event.target);
});
document.addEventListener("change", (event) => {
  const place = event.target.closest(".media-input");
  if (place) showPicture(place);
});
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    const target = event.target.closest?.(".media-input, fieldset.list");
    const button = target?.querySelector(":scope > .upload, :scope > .row > .upload");
    if (!button || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    if (kind === "drop") takeFiles(button, [...event.dataTransfer.files]);
  });
}
document.addEventListener("submit", (event) => {
  const form = event.target.closest(".task-form");
  if (!form) return;
  if (Number(form.dataset.sending || 0) > 0) {
    event.preventDefault();
    document.getElementById("waits").textContent = "A file is still being uploaded. Queue the task when it is there.";
    return;
  }
  // once: a second click would queue a second task
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll(".task-form")) delete form.dataset.sent;
});

prepare(document);
const wrong = document.querySelector("[autofocus][aria-invalid]");
if (wrong) {
  openTo(wrong);
  wrong.focus();
}
