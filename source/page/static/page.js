"use strict";
// What cannot be done on the server: players that go together, and what must survive a part of the page being replaced.

// A part that is brought up to date keeps what people opened.
if (window.Idiomorph) {
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
}

// -- lists that are followed: at their end as long as nobody scrolled away -------------------------------------------

const atEnd = new WeakMap();

function isAtEnd(list) {
  return list.scrollHeight - list.scrollTop - list.clientHeight < 24;
}

function followEnds() {
  for (const list of document.querySelectorAll("[data-follow]")) {
    if (!atEnd.has(list)) {
      atEnd.set(list, true);
      list.addEventListener("scroll", () => atEnd.set(list, isAtEnd(list)), { passive: true });
    }
    if (atEnd.get(list)) list.scrollTop = list.scrollHeight;
  }
}

// -- answers that do not come ----------------------------------------------------------------------------------------

// Who watches a page that stands still must know that it is the page.
function answers(does) {
  document.getElementById("no-answer").hidden = does;
}

document.addEventListener("htmx:sendError", () => answers(false));
document.addEventListener("htmx:responseError", (event) => answers(event.detail.xhr.status === 401));
document.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.successful) answers(true); });

// -- players ----------------------------------------------------------------------------------------------------------

// The videos of a group play, stop and seek with whichever is used. Each change asks the others for what they lack, so
// an event that was caused by another finds nothing to do.

function others(video) {
  const group = video.closest && video.closest("[data-players]");
  return group ? [...group.querySelectorAll("video")].filter((each) => each !== video) : [];
}

function bring(video, time) {
  const wanted = Math.min(time, video.duration || 0);
  if (Math.abs(video.currentTime - wanted) > 0.05) video.currentTime = wanted;
}

function start(video) {
  video.play().catch(() => {}); // stopped again before it began
}

function playGroup(group) {
  const videos = [...group.querySelectorAll("video")];
  if (videos.some((video) => !video.paused)) return videos.forEach((video) => video.pause());
  const time = videos.some((video) => video.ended) ? 0 : Math.min(...videos.map((video) => video.currentTime));
  return videos.forEach((video) => { bring(video, time); start(video); });
}

const atOneVideo = {
  play(video) {
    for (const other of others(video)) if (other.paused && !other.ended) { bring(other, video.currentTime); start(other); }
  },
  pause(video) {
    if (!video.ended) for (const other of others(video)) if (!other.paused) other.pause();
  },
  seeking(video) {
    if (video.paused && !video.ended) for (const other of others(video)) if (other.paused) bring(other, video.currentTime);
  },
};

for (const [name, change] of Object.entries(atOneVideo)) {
  // media events do not bubble, but they can be caught on the way down
  document.addEventListener(name, (event) => {
    if (!(event.target instanceof HTMLVideoElement)) return;
    change(event.target);
    const group = event.target.closest("[data-players]"), button = group && group.querySelector("[data-play]");
    if (!button) return;
    const playing = [...group.querySelectorAll("video")].some((video) => !video.paused);
    button.textContent = playing ? "Pause" : "Play together";
  }, true);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-play]");
  if (button) playGroup(button.closest("[data-players]"));
});

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-loop]")) return;
  const videos = event.target.closest("[data-players]").querySelectorAll("video");
  videos.forEach((video) => { video.loop = event.target.checked; });
});

document.addEventListener("DOMContentLoaded", followEnds);
document.addEventListener("htmx:afterSettle", followEnds);
