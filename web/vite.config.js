// SPDX-License-Identifier: GPL-2.0-or-later
import { defineConfig } from 'vite';

export default defineConfig({
  build: {
    target: 'es2022',
    // noVNC and its codecs: one page, loaded when a VM is looked at.
    chunkSizeWarningLimit: 900,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
