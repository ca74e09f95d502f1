// Light, dark, or as the system has it. Loaded before anything is drawn, so that nothing flashes.
"use strict";
{
  const NEXT = {auto: "light", light: "dark", dark: "auto"};
  const NAMES = {auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark"};
  const KEY = "fetcher.theme";
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;  // storage is switched off
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // It holds for as long as the page is open.
    }
  };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
  };
  apply(kept() in NEXT ? kept() : "auto");
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => {
      button.textContent = NAMES[document.documentElement.dataset.theme];
    };
    name();
    button.addEventListener("click", () => {
      apply(NEXT[document.documentElement.dataset.theme]);
      keep(document.documentElement.dataset.theme);
      name();
    });
  });
}
