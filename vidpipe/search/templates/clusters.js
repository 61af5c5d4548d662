"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const message = document.getElementById("message");

function csvCell(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The labels file: a video that had a label keeps it, the others get their cluster's name. */
function csvText() {
  const lines = ["video,label,cluster"];
  for (const [video, label, cluster, isKnown] of data.rows) {
    lines.push([video, isKnown || !cluster ? label : data.names[cluster], cluster].map(csvCell).join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}

for (const field of document.querySelectorAll(".name")) {
  field.addEventListener("input", () => {
    data.names[field.dataset.cluster] = field.value.trim();
    message.textContent = "Not saved";
  });
}

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvText()], { type: "text/csv;charset=utf-8" }));
  link.download = "clusters.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  const names = new Set(Object.values(data.names).filter(Boolean));
  message.textContent = `Saved, with ${names.size} ${names.size === 1 ? "name" : "names"}`;
});
