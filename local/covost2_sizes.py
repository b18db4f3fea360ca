"""CoVoST 2: sizes and checksums of its tables, utterances of its splits.

As huggingface's datasets recorded them when it downloaded and joined all tables: datasets/covost2/dataset_infos.json at
8803c182e6^ of github.com/huggingface/datasets.
"""

from __future__ import annotations

# <source>_<target> -> bytes and SHA-256 of covost_v2.<source>_<target>.tsv.tar.gz
ARCHIVES = {
    "en_de": (25779505, "f414705b6197cc9a30cf05f8fc4471c8e99809a2c1f2c1da24a7ba617f42fce2"),
    "en_tr": (23659131, "9cfb1533cd2226c6ed13fe9462b2ecc5ebc9bb50fc0eb7d0dfe8a68ee4873d42"),
    "en_fa": (26148420, "d255d629f604aa32ea06dbb612acf7602221bb0e05ad0d652ad0cf9ba6894532"),
    "en_sv-SE": (23671482, "0c591c50b3b13db4df9365802c2cf8a69c3db00a39da6306fc44e76a1b25b4b6"),
    "en_mn": (27527436, "7ef1b63adb5cb6bbc7a1f3cfa7c2ceab9a83d99aa4727ba894d101b7b320beb7"),
    "en_zh-CN": (24280932, "7509b7c587326ef094c1e639111aef13f3888d26f707672dadec4d37d8e501d8"),
    "en_cy": (24224499, "72173329cec05fc70efbf9efa2144a3cc4fbbf3c2e59c01d176a8960f40d0da7"),
    "en_ca": (24167201, "efbcd8fcc730ce3900adb274d0842ad65980a559de0a840d4a8bcbe94eabf774"),
    "en_sl": (23421999, "4af4f68bbc89527f0cce69c99721a27ae13ec98faaba38436b742ad3a9999393"),
    "en_et": (23223843, "4966b7215adf6d29ad5d9c91030025b245c79c460594c0a0c8fbc2a95916e0ab"),
    "en_id": (22904065, "f2948f3473fafe6b437e8b55949b059d21da5b9893bd011f6d650a6bcba98f79"),
    "en_ar": (25301304, "cd780ad364b8b246b16cf76e4d8e14e21ca29e70b247a10856a923736e973122"),
    "en_ta": (30037790, "e95519f0157a779315bf8f75496f71a3fae7be5fec0375ca8fb217d6f1aac6fa"),
    "en_lv": (24573927, "b3bbbdf9ab66df79a00724145d43669305460c345bce950f0f2e252900b8bd53"),
    "en_ja": (26664247, "2308c0b1737cc3ed7662d7e1a748b29da71ea9023681a617bd51a81c11889671"),
    "fr_en": (7282129, "596d42accc976c607e7b4bd53903a0a03d5036af3b3ea276d7ff188981bb5b2f"),
    "de_en": (9926797, "a64efc469ba7bd392de32538acf49ff05ac7fe83dd705b9a2a07573e63a2fedd"),
    "es_en": (3202080, "aafb7255c00444cbff44ca92a947e16c8f7297f326b332f78b427f4f80240b97"),
    "ca_en": (5021926, "acbdbc2b365ac2d192f802b2df2b4796070044e6782193bd0eca5d08e514def1"),
    "it_en": (1691247, "da63a3ddf926a595971412e8fdf702405945ea6f9c6ac9de652a94fd6713183d"),
    "ru_en": (1443078, "4d23d3d771234ef1e4afd0fb62231d3e9490cebb4c445997715607feef806fec"),
    "zh-CN_en": (587550, "7a49bba59f8a05b68385e686a878332fb66080c12d4d85dc02b10f3f935447a4"),
    "pt_en": (476419, "944cf077d47a0ee360fcde34ff42a77f4e898a6446c26ca9402ff543ef91e63b"),
    "fa_en": (3864623, "1882aea149ce2ae9c553c41c2b7b6c837c4fc648a1a381705107e91679198e17"),
    "et_en": (246569, "e0beadd6013b74efc2642c2289a67a0a3243bdbc5dc470798440b7538207eba0"),
    "mn_en": (189710, "9bf7633e24a9742211aeeebaee931d22e04a7e91a87e40d4f4957d408aa3dff4"),
    "nl_en": (543795, "1cd5baf7282e6556d7463d26ae28cc717a64b9b7875bd1b38f226e04498b2336"),
    "tr_en": (280904, "23130548e8ff9433c74b2193e0bc39d04d2aacb811841f592a7b35d358fad697"),
    "ar_en": (109802, "a8f7f8e393cc78aea1382e021bd6adf4ff75ee4ae96cddd96c80291fcc8c87cf"),
    "sv-SE_en": (96161, "f4d9931ef0884eb601e1d6ac7b95893ac0b88534c72c1404c64ae0b4bd2d7c81"),
    "lv_en": (88836, "c13ae5b001698f772c683450d121c9a9dccdfd0c90184f75429d65e9f846dfe3"),
    "sl_en": (58445, "6f2e6f2bc8018fff0466030cd385837e89e482d162bee9d5bca269dcbc7eab69"),
    "ta_en": (55659, "03176367953cde717c1b6c19d21f2a0298f07f3459f5ef24866a44988eaea335"),
    "ja_en": (54666, "2ca0ca6607a58cee36c72c43b916a5ffb9bc920a766806751aea6e1620a4371f"),
    "id_en": (51755, "4e6b58e66b5a7cbba543895ee1ffbdf5b49018e1274f7fe5b045ecb6be467095"),
    "cy_en": (875557, "73fd49342e27636ab4bd84b3c2762a2803d4ddaa01b98032ba79228335e9560c"),
}
# language spoken -> utterances of train, dev, test; from English they are the same into all languages
UTTERANCES = {
    "en": (289430, 15531, 15531),
    "fr": (207374, 14760, 14760),
    "de": (127834, 13511, 13511),
    "es": (79015, 13221, 13221),
    "ca": (95854, 12730, 12730),
    "it": (31698, 8940, 8951),
    "ru": (12112, 6110, 6300),
    "zh-CN": (7085, 4843, 4898),
    "pt": (9158, 3318, 4023),
    "fa": (53949, 3445, 3445),
    "et": (1782, 1576, 1571),
    "mn": (2067, 1761, 1759),
    "nl": (7108, 1699, 1699),
    "tr": (3966, 1624, 1629),
    "ar": (2283, 1758, 1695),
    "sv-SE": (2160, 1349, 1595),
    "lv": (2337, 1125, 1629),
    "sl": (1843, 509, 360),
    "ta": (1358, 384, 786),
    "ja": (1119, 635, 684),
    "id": (1243, 792, 844),
    "cy": (1241, 690, 690),
}
