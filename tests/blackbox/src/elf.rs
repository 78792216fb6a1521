//! The smallest programs: one system call each, with zero arguments but the first, exiting with its error number.
//! They need nothing of the root that they run in, and the 32-bit ones no compiler for it.

/// The instruction set of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `syscall`, the 64-bit table.
    X86_64,
    /// `int 0x80`, the 32-bit table.
    I386,
}

/// An executable that calls `number` with `first`, 0, 0, ... and exits with the error number, or 0 on success.
#[must_use]
pub fn call(arch: Arch, number: u32, first: i32) -> Vec<u8> {
    let (number, first) = (number.to_le_bytes(), first.to_le_bytes());
    match arch {
        Arch::X86_64 => {
            let code = [
                &[0xb8][..],
                &number, // mov eax, number
                &[0x48, 0xc7, 0xc7],
                &first, // mov rdi, first (sign-extended)
                &[0x31, 0xf6, 0x31, 0xd2, 0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0, 0x4d, 0x31, 0xc9], // rsi rdx r10 r8 r9 = 0
                &[0x0f, 0x05],                                                                   // syscall
                &[0x48, 0x89, 0xc7, 0x48, 0xf7, 0xdf], // mov rdi, rax; neg rdi
                &[0x48, 0x85, 0xff, 0x79, 0x02, 0x31, 0xff], // test rdi, rdi; jns +2; xor edi, edi
                &[0xb8, 231, 0, 0, 0, 0x0f, 0x05],     // mov eax, exit_group; syscall
            ]
            .concat();
            elf(64, &code)
        }
        Arch::I386 => {
            let code = [
                &[0xb8][..],
                &number, // mov eax, number
                &[0xbb],
                &first,                                                        // mov ebx, first
                &[0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x31, 0xff, 0x31, 0xed], // ecx edx esi edi ebp = 0
                &[0xcd, 0x80],                                                 // int 0x80
                &[0x89, 0xc3, 0xf7, 0xdb],                                     // mov ebx, eax; neg ebx
                &[0x85, 0xdb, 0x79, 0x02, 0x31, 0xdb], // test ebx, ebx; jns +2; xor ebx, ebx
                &[0xb8, 252, 0, 0, 0, 0xcd, 0x80],     // mov eax, exit_group; int 0x80
            ]
            .concat();
            elf(32, &code)
        }
    }
}

/// A file with one loadable segment (elf(5)), code right behind the headers.
fn elf(bits: u64, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let wide = bits == 64;
    let (header, segment): (u64, u64) = if wide { (64, 56) } else { (52, 32) };
    let word = |value: u64| value.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
    let size = header + segment + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, if wide { 62 } else { 3 }, 0, 1, 0, 0, 0]);
    for value in [BASE + header + segment, header, 0] {
        file.extend(word(value)); // entry, program headers, section headers
    }
    file.extend([0, 0, 0, 0, header as u8, 0, segment as u8, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let (load, flags) = ([1, 0, 0, 0], [5, 0, 0, 0]);
    file.extend(load);
    if wide {
        file.extend(flags);
    }
    for value in [0, BASE, BASE, size, size] {
        file.extend(word(value)); // offset, address, physical address, sizes
    }
    if !wide {
        file.extend(flags);
    }
    file.extend(word(0x1000));
    file.extend(code);
    file
}
